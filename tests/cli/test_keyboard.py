"""What is typed while a reply is written, and the terminal that a chat leaves behind."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("no pseudo terminals here", allow_module_level=True)

import termios

import psutil

from cadcpp.chat.transcript import load
from tests.support.fakechat import PROSE
from tests.support.terminal import Terminal

CHAT = [sys.executable, "-m", "tests.support.fakechat"]
SHELL = [sys.executable, "-m", "tests.support.shell"]
Open = Callable[..., Terminal]


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Open]:
    opened: list[Terminal] = []

    def start(*command: str, **how: str) -> Terminal:
        opened.append(Terminal(command, WAIT_FOR=str(tmp_path / "go"), **how))
        opened[-1].read_until("> ")
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def echoes(terminal: Terminal) -> bool:
    return bool(termios.tcgetattr(terminal._inner)[3] & termios.ECHO)


def questions(state: Path) -> list[str]:
    (file,) = (state / "cadcpp" / "chats").iterdir()
    return [message.content for message in load(file) if message.role == "user"]


def test_what_is_typed_in_a_reply_begins_the_next_line(shown: Open, state: Path, tmp_path: Path) -> None:
    terminal = shown(*CHAT, "waits")
    terminal.type("go\r")
    terminal.read_until("one")
    terminal.type("typer\x7fd")
    (tmp_path / "go").touch()
    assert re.fullmatch(r"one two\n\[.*\]\n> typed", terminal.read_until("> typed"))
    terminal.type("!\r")
    terminal.read_until("resident]\n> ")
    terminal.type("/quit\r")
    assert terminal.wait() == 0 and questions(state) == ["go", "typed!"]


def test_a_line_that_is_typed_in_a_reply_is_sent_after_it(shown: Open, state: Path, tmp_path: Path) -> None:
    terminal = shown(*CHAT, "waits")
    terminal.type("go\r")
    terminal.read_until("one")
    terminal.type("again\r/quit\r")
    (tmp_path / "go").touch()
    assert terminal.wait() == 0 and questions(state) == ["go", "again"]
    assert re.search(r"one two\r\n", terminal.read_all())


def test_it_would_show_in_the_reply(shown: Open) -> None:
    terminal = shown(*CHAT, "waits", ECHO="on")
    terminal.type("go\r")
    terminal.read_until("one")
    terminal.type("typed")
    assert terminal.read_until("typed") == "onetyped"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 143, id="SIGTERM"),
        pytest.param(signal.SIGHUP, 129, id="SIGHUP"),
    ],
)
def test_a_signal_in_a_reply_leaves_the_terminal_as_it_was(shown: Open, number: int, code: int) -> None:
    terminal = shown(*CHAT, "endless")
    terminal.type("go\r")
    terminal.read_until("on and on and")
    assert not echoes(terminal)
    again = number == signal.SIGINT  # a second one of the others would end it at once
    os.kill(terminal._process.pid, number)
    while terminal._process.poll() is None:
        terminal._read()
        time.sleep(0.2)
        if again:
            os.kill(terminal._process.pid, number)
    assert terminal.wait() == code and echoes(terminal)


@pytest.mark.parametrize("kind", ["fails", "waits"])
def test_a_chat_that_ends_or_fails_leaves_the_terminal_as_it_was(shown: Open, tmp_path: Path, kind: str) -> None:
    terminal = shown(*CHAT, kind)
    before = termios.tcgetattr(terminal._inner)
    terminal.type("go\r/quit\r")
    terminal.read_until("one")
    assert not echoes(terminal)
    (tmp_path / "go").touch()
    assert "a mistake in the program" in terminal.read_all() or kind == "waits"
    assert terminal.wait() == 0 and echoes(terminal)
    assert termios.tcgetattr(terminal._inner) != before  # which was the line editor's


@pytest.mark.parametrize("by_way_of", [[], ["bg\r"]], ids=["fg", "bg, then fg"])
def test_a_reply_that_is_suspended_leaves_the_terminal_as_it_was(shown: Open, by_way_of: list[str]) -> None:
    terminal = shown(*SHELL, *CHAT, "endless")
    terminal.type("go\r")
    terminal.read_until("on and on and")
    terminal.type("\x1a")
    assert terminal.read_until("suspended, echo on\n")
    for typed in by_way_of:
        terminal.type(typed)
        terminal.read_until("on and on and")
        assert echoes(terminal)
    terminal.type("fg\r")
    while echoes(terminal):
        terminal._read()
    terminal.read_until("on and on and")
    terminal.press_until_it_ends("\x03")
    assert terminal.wait() == 130 and echoes(terminal)


def test_a_prompt_that_is_suspended_goes_on_as_a_prompt(shown: Open, state: Path) -> None:
    terminal = shown(*SHELL, *CHAT, "slow")
    editing = termios.tcgetattr(terminal._inner)
    (chat,) = psutil.Process(terminal._process.pid).children()
    chat.send_signal(signal.SIGTSTP)
    assert terminal.read_until("suspended, echo on\n")
    terminal.type("fg\r")
    while termios.tcgetattr(terminal._inner) != editing:
        terminal._read()
    terminal.type("go\r")
    terminal.read_until("resident]\n> ")
    terminal.type("/quit\r")
    assert terminal.wait() == 0 and questions(state) == ["go"] and echoes(terminal)


def test_an_editor_has_the_terminal_as_it_was(shown: Open, state: Path, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nstty -a </dev/tty >"$1"\n')
    editor.chmod(0o700)
    terminal = shown(*CHAT, "slow", EDITOR=str(editor), VISUAL="")
    terminal.type("/editor\r")
    terminal.read_until("resident]\n> ")
    terminal.type("/quit\r")
    assert terminal.wait() == 0
    assert re.search(r"(?<!-)\becho\b", questions(state)[0])


# Lines. -----------------------------------------------------------------------------------------------


def test_a_reply_breaks_between_words(shown: Open) -> None:
    terminal = shown(*CHAT, "prose")
    terminal.resize(30)
    terminal.type("go\r")
    lines = terminal.read_until("resident]\n> ").split("\n[")[0].splitlines()[1:]
    assert len(lines) > 3 and " ".join(lines).strip() == PROSE


def test_a_file_gets_a_reply_to_the_letter(shown: Open, tmp_path: Path) -> None:
    terminal = shown(*CHAT, "prose", stdout=str(tmp_path / "reply"))
    terminal.resize(30)
    terminal.type("go\r")
    terminal.read_until("resident]\n> ")
    terminal.type("/quit\r")
    assert terminal.wait() == 0 and (tmp_path / "reply").read_text() == f" {PROSE}\n"


def test_a_reply_that_ends_early_shows_all_of_its_last_word(shown: Open, tmp_path: Path) -> None:
    terminal = shown(*CHAT, "fails")
    terminal.type("go\r")
    assert terminal.read_until("one") == "> go\none"
    (tmp_path / "go").touch()
    terminal.read_until("program\n> ")
    terminal.type("/quit\r")
    assert "one tw" in terminal.read_all()
