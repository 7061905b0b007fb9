"""A command whose extra is not installed says so in one line, with the command that installs it, before it works."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import cadcpp.cli.chat
from cadcpp.cli import main

CASES = [
    pytest.param("chat", "a chat at a terminal", "prompt_toolkit", ("chat", "-m", "MODEL"), id="chat"),
    pytest.param("models", "making models", "gguf", ("models", "demo", "--dir", "PLACE"), id="demo"),
    pytest.param("models", "making models", "gguf", ("models", "make-draft", "MODEL", "-o", "PLACE/d"), id="draft"),
    pytest.param("pull", "fetching", "huggingface_hub", ("models", "pull", "a/b", "f", "--dir", "PLACE"), id="pull"),
    pytest.param("server", "cadcpp serve", "uvicorn", ("serve", "-m", "MODEL"), id="serve"),
]


@pytest.mark.parametrize(("extra", "what", "package", "arguments"), CASES)
def test_the_command_that_installs_it_is_told(
    extra: str,
    what: str,
    package: str,
    arguments: tuple[str, ...],
    tiny: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # imports of it fail
    monkeypatch.setattr(cadcpp.cli.chat, "_is_interactive", lambda: True)
    places = {"MODEL": str(tiny()), "PLACE": str(tmp_path / "place")}
    result = CliRunner().invoke(main, [_put(argument, places) for argument in arguments])
    assert result.exit_code == 1 and result.stdout == ""
    told = f"cadcpp: {what} needs {package}, which is not installed: pip install 'cadcpp[{extra}]'\n"
    assert result.stderr.endswith(told) and result.stderr.count("\n") <= 2  # one fetch names its file first
    assert not (tmp_path / "place").exists()


def _put(argument: str, places: dict[str, str]) -> str:
    for name, place in places.items():
        argument = argument.replace(name, place)
    return argument


def test_a_chat_in_a_pipe_needs_no_extra(tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    model = tiny(chat_template="{{ messages[-1].content }}")
    result = CliRunner().invoke(main, ["chat", "-m", str(model), "-n", "3"], input="")
    assert (result.exit_code, result.stderr) == (0, "")
