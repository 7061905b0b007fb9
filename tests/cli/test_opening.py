"""What is typed while a chat's models are loaded."""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cadcpp.cli.chat import opening
from cadcpp.cli.chat.opening import Opening
from cadcpp.cli.chat.reader import Typed
from cadcpp.cli.chat.state_dir import Places
from cadcpp.errors import ModelError

PLAN = SimpleNamespace(streams=False, draft=8, layout=SimpleNamespace(pinned_bytes=32, expert_bytes=0))


class FakeLines:
    """Somebody types ``text`` after ``first`` has happened."""

    interactive = True

    def __init__(self, text: str | None, first: Callable[[], object] = lambda: None) -> None:
        self._text, self._first = text, first
        self.n_read, self.abandoned = 0, threading.Event()

    def read(self, prompt: str, text: str = "") -> str | None:
        self.n_read += 1
        self._first()
        return self._text

    def abandon(self) -> None:
        self.abandoned.set()


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines = list[str]()
    monkeypatch.setattr(opening, "screen", lambda *_: "what will run")
    monkeypatch.setattr(opening, "note", lines.append)
    return lines


def made(lines: FakeLines, *, interactive: bool = True, reads: bool = True) -> Opening:
    opened = Opening((Path("v"), None), Places(None), interactive=interactive, reads=reads)
    opened.__dict__["lines"] = lines
    return opened


def announce(opened: Opening) -> None:
    opened.announce(cast(Any, PLAN), cast(Any, None))


def test_the_first_message_is_read_before_the_session_is_there(said: list[str]) -> None:
    session = Future[Any]()

    def load() -> None:
        said.append("reading")
        session.set_result("a session")

    lines = FakeLines("hello", load)
    opened = made(lines)
    announce(opened)
    opened.meanwhile(session)
    assert opened.typed == [Typed("hello")] and not lines.abandoned.is_set()
    assert said == ["what will run", "reading"]


def test_no_more_lines_are_told_as_well() -> None:
    session = Future[Any]()
    opened = made(FakeLines(None, lambda: session.set_result("a session")))
    announce(opened)
    opened.meanwhile(session)
    assert opened.typed == [None]


def test_a_session_that_fails_ends_the_reading() -> None:
    session = Future[Any]()
    lines = FakeLines(None, lambda: session.set_exception(ModelError("damaged")))
    opened = made(lines)
    announce(opened)
    opened.meanwhile(session)
    assert lines.abandoned.is_set()


def test_nothing_is_read_for_what_cannot_be_planned() -> None:
    session = Future[Any]()
    session.set_exception(ModelError("no such file"))
    lines = FakeLines("hello")
    made(lines).meanwhile(session)
    assert lines.n_read == 0


@pytest.mark.parametrize("how", [{"interactive": False}, {"reads": False}])
def test_a_pipe_and_a_chat_that_goes_on_are_read_later(how: dict[str, bool]) -> None:
    session, lines = Future[Any](), FakeLines("hello")
    session.set_result("a session")
    opened = made(lines, **how)
    announce(opened)
    opened.meanwhile(session)
    assert lines.n_read == 0 and opened.typed == []


@pytest.mark.skipif(sys.platform == "win32", reason="prompt_toolkit needs a console there")
def test_a_line_editor_can_be_made_to_end() -> None:
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input

    from cadcpp.cli.chat.editor import Editor

    with create_pipe_input() as keyboard, create_app_session(input=keyboard):
        editor, over = Editor(None, ()), threading.Event()

        def abandon() -> None:
            while not over.wait(0.01):
                editor.abandon()

        thread = threading.Thread(target=abandon)
        thread.start()
        try:
            assert editor.read("> ") is None
        finally:
            over.set()
            thread.join()
        keyboard.send_text("later\r")
        assert editor.read("> ") == "later"
