"""A llama.cpp that names its tensors in another way: the same text, one line of warning, and nothing hangs."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.gguf.header import read_header
from cadcpp.models.probe import unreported
from cadcpp.native import eval_callback, layer_reports
from cadcpp.native.context import Stopped
from cadcpp.residency.cursor_check import NO_LAYER, NO_ROUTER
from cadcpp.residency.memory_plan import make_plan
from cadcpp.runtime.session import Session
from cadcpp.telemetry.stats import Stats

N_CTX = 256
PROMPT = list(range(20, 60))
Made = Callable[[], Session]


@pytest.fixture
def dense(tiny: Callable[..., Path]) -> Made:
    path = tiny("llama", n_layer=12, n_embd=256, n_head=8, n_head_kv=2, n_ff=1024)
    fixed = make_plan(read_header(path), None, ram=1 << 40, n_ctx=N_CTX, rows=64).fixed
    return lambda: start(path, fixed + read_header(path).n_bytes // 2)


@pytest.fixture
def mixture(tiny: Callable[..., Path]) -> Made:
    path = tiny("mixture", n_layer=4, n_embd=256, n_ff=512, n_experts=16, n_used=2)
    whole = make_plan(read_header(path), None, ram=1 << 40, n_ctx=N_CTX, rows=16)
    ram = whole.fixed + whole.layout.pinned_bytes + whole.layout.expert_bytes // 2 + (1 << 20)
    return lambda: start(path, ram)


def start(path: Path, ram: int | None) -> Session:
    return Session(path, None, SessionConfig(n_ctx=N_CTX, n_threads=1, ram=ram, speculative="off"))


def rename(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setattr(layer_reports, name, "renamed-{}")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Without llama.cpp's own log, which users do not see."""
    return [record.getMessage() for record in caplog.records if not record.name.startswith("cadcpp.llama")]


def write(session: Session) -> tuple[list[int], bool | None]:
    """Some text, and what its figures say of the reports."""
    stats = Stats()
    chunks = session.stream(PROMPT, SamplingConfig(temperature=0.0), 8, stats=stats)
    return [token for chunk in chunks for token in chunk.tokens], stats.layers_reported


@pytest.mark.parametrize(
    ("model", "names", "warning"),
    [
        ("dense", (), None),
        ("dense", ("_ROUTER",), None),
        ("dense", ("_LAYER",), NO_LAYER),
        ("mixture", (), None),
        ("mixture", ("_ROUTER",), NO_ROUTER),
        ("mixture", ("_LAYER",), NO_LAYER),
        ("mixture", ("_LAYER", "_ROUTER"), NO_LAYER),
    ],
)
def test_the_text_is_the_same_and_a_line_says_what_is_missing(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    model: str,
    names: tuple[str, ...],
    warning: str | None,
) -> None:
    made = request.getfixturevalue(model)
    with closing(made()) as named:
        text, _ = write(named)
    rename(monkeypatch, *names)
    with closing(made()) as session:
        assert session.pager.state().layers_reported is None
        found = [write(session), write(session)]
    assert found == [(text, warning is None)] * 2
    assert warnings(caplog) == ([] if warning is None else [f"cadcpp: {warning}"])


@pytest.mark.parametrize("ends", [KeyboardInterrupt, Stopped])
@pytest.mark.parametrize(("names", "reported"), [((), True), (("_LAYER",), False)])
def test_a_pass_that_is_stopped_says_nothing(
    dense: Made,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ends: type[BaseException],
    names: tuple[str, ...],
    reported: bool,
) -> None:
    rename(monkeypatch, *names)
    with closing(dense()) as session:
        verifier = session.engine.verifier.context
        verifier.batch.add(PROMPT[:1], 0, 0, 1, True)

        def end(_tensor: int) -> bytes:
            if ends is KeyboardInterrupt:
                raise KeyboardInterrupt
            verifier.stop()
            return b""

        with monkeypatch.context() as patch:
            patch.setattr(eval_callback, "tensor_name", end)
            with pytest.raises(ends):
                verifier.decode()
        verifier.resume()
        assert session.pager.state().layers_reported is None and warnings(caplog) == []
        verifier.clear()
        verifier.decode()
        assert session.pager.state().layers_reported is reported
    assert len(warnings(caplog)) == (not reported)


def test_in_memory_nothing_rests_on_it(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rename(monkeypatch, "_LAYER")
    with closing(start(tiny("llama"), None)) as session:
        assert write(session)[1] is None
    assert warnings(caplog) == []


@pytest.mark.parametrize("name", ["l_out-{}", "renamed-{}"])
def test_the_command_says_it_on_stderr_and_in_its_figures(dense: Made, name: str) -> None:
    with closing(dense()) as session:
        path, ram = session.model.path, session.config.ram
    code = (
        f"from cadcpp.native import layer_reports; layer_reports._LAYER = {name!r}; from cadcpp.cli import main; main()"
    )
    options = ["--ram", f"{ram}B", "--ctx", str(N_CTX), "--threads", "1", "--speculative", "off", "--json"]
    command = [sys.executable, "-c", code, "generate", "-m", str(path), *options, "-p", "hello", "-n", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["stats"]["layers_reported"] is (name == "l_out-{}")
    assert done.stderr.splitlines() == ([] if name == "l_out-{}" else [f"cadcpp: {NO_LAYER}"])


@pytest.mark.parametrize(
    ("names", "lacking"),
    [((), []), (("_LAYER",), ["layers"]), (("_ROUTER",), ["routers"]), (("_LAYER", "_ROUTER"), ["layers", "routers"])],
)
def test_the_doctors_probe(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], lacking: list[str]) -> None:
    rename(monkeypatch, *names)
    assert unreported() == lacking
