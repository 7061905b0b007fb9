"""What is said where --speculative auto cannot choose what drafts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import run

TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def pair(tiny: Callable[..., Path]) -> list[object]:
    """A verifier and its draft, as arguments."""
    return ["-m", tiny("llama", chat_template=TEMPLATE), "-d", tiny("llama", noise=0.02), "--temp", 0, "-n", 4]


@pytest.mark.parametrize("fallback", ["llmcad", "none"])
def test_sizes_only_means_staged_and_is_told(pair: list[object], fallback: str) -> None:
    remark = f"staged, since --fallback {fallback} decides on sizes only"
    written = run("generate", *pair, "-p", "Hi", "--fallback", fallback)
    assert written.stderr.splitlines()[0] == f"drafting: {remark}"
    (line,) = (row for row in banner(*pair, "--fallback", fallback) if row.startswith("drafting"))
    assert line.endswith(f"; {remark}")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="the cost model chooses"),
        pytest.param(["--fallback", "llmcad", "--speculative", "staged"], id="staged by wish"),
        pytest.param(["--fallback", "llmcad", "--speculative", "draft"], id="not staged"),
        pytest.param(["--fallback", "llmcad", "--speculative", "off"], id="off"),
        pytest.param(["--fallback", "llmcad", "--max-tree-size", 1], id="no trees"),
    ],
)
def test_nothing_is_told_elsewhere(pair: list[object], options: list[object]) -> None:
    assert "staged, since" not in run("generate", *pair, "-p", "Hi", *options).stderr
    assert "staged, since" not in "\n".join(banner(*pair, *options))


def test_nothing_is_told_without_a_draft(pair: list[object]) -> None:
    alone = [*pair[:2], *pair[4:]]
    assert "staged" not in run("generate", *alone, "-p", "Hi", "--fallback", "llmcad").stderr


def banner(*options: object) -> list[str]:
    return run("chat", *options, stdin=b"/show info\n").stderr.splitlines()
