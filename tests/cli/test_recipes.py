"""Every piece of Python in the page for those who come from llama-cpp-python runs as it stands there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the extra `server` is not installed")

from cadcpp.models.demo import DemoPair  # noqa: E402
from tests.support.command import ROOT  # noqa: E402
from tests.support.server import Server, serving  # noqa: E402

pytestmark = pytest.mark.real

PAGE = (ROOT / "docs" / "coming-from-llama-cpp-python.md").read_text("utf-8")
PIECES = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
USES = re.compile(r"^(?:import|from) (openai|instructor|langchain_openai)", re.MULTILINE)


@pytest.fixture(scope="module")
def server(target: Path, demo: DemoPair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("serve") / "log"
    with serving(log, "-m", target, "-d", demo.draft, "--ctx", 512, "--threads", 1, "--alias", "large") as running:
        yield running


def test_there_are_as_many_as_the_page_says() -> None:
    assert [USES.findall(piece) for piece in PIECES] == [[], ["openai"], ["instructor", "openai"], ["langchain_openai"]]


@pytest.mark.filterwarnings("ignore")  # of the libraries' own
@pytest.mark.parametrize("piece", PIECES, ids=["class", "openai", "instructor", "langchain"])
def test_a_piece_runs(
    piece: str, server: Server, target: Path, demo: DemoPair, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in USES.findall(piece):
        pytest.importorskip(package)
    places = {"large.gguf": target, "small.gguf": demo.draft, "http://127.0.0.1:8000/v1": server.url}
    for name, place in places.items():
        piece = piece.replace(f'"{name}"', repr(str(place)))
    exec(compile(piece, "recipe", "exec"), {"__name__": "recipe"})
    assert len(capsys.readouterr().out) > 5
