"""The chat in a pseudo terminal, with a scripted session, and what it shows there."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cadcpp.chat.transcript import Message, load
from cadcpp.cli.progress import bar_line, format_seconds
from cadcpp.cli.terminal import printable

if sys.platform == "win32":
    pytest.skip("no pseudo terminals here", allow_module_level=True)

from tests.support.command import COMMAND, run
from tests.support.mutate import put, strings, take_apart
from tests.support.terminal import Terminal

Open = Callable[..., Terminal]


@pytest.fixture
def fake() -> Iterator[Open]:
    shown: list[Terminal] = []

    def start(kind: str, *options: str, **how: str) -> Terminal:
        shown.append(Terminal([sys.executable, "-m", "tests.support.fakechat", kind, *options], **how))
        return shown[-1]

    yield start
    for terminal in shown:
        terminal.close()


def said(state: Path) -> list[Message]:
    """What the last transcript holds."""
    return load(max((state / "cadcpp" / "chats").iterdir()))


def questions(state: Path) -> list[str]:
    return [message.content for message in said(state) if message.role == "user"]


def test_typing_several_lines_editing_and_history(fake: Open, state: Path) -> None:
    terminal = fake("slow")
    terminal.read_until("> ")
    for keys in (
        "one\x1b\rtwo\r",  # Alt-Enter
        "\x1b[200~three\nfour\x1b[201~\r",  # a paste
        "fie\x7fve\x01[\x05]\r",  # Backspace, start of line, end of line
        "\x1b[A\r",  # up: the last line again
        '"""\r',
        "six\r",
        '/seven"""\r',
    ):
        terminal.type(keys)
        terminal.read_until(". " if keys in ('"""\r', "six\r") else "resident]\n> ")
    terminal.type("/quit\r")
    assert terminal.wait() == 0
    assert questions(state) == ["one\ntwo", "three\nfour", "[five]", "[five]", "six\n/seven"]


def test_the_window_may_change_its_size(fake: Open, state: Path) -> None:
    terminal = fake("slow")
    terminal.read_until("> ")
    line = "a line that is longer than a narrow window, typed while its size changes, caf\u00e9 \u4f60\u597d"
    for start, columns in ((0, 20), (30, 7), (60, 200)):
        terminal.resize(columns)
        terminal.type(line[start : start + 30])
    terminal.type("\r")
    terminal.read_until("resident]\n> ")
    terminal.type("\x04")
    assert terminal.wait() == 0
    assert questions(state) == [line]


def test_ctrl_c_stops_a_reply_drops_a_line_and_leaves(fake: Open, state: Path) -> None:
    terminal = fake("endless")
    terminal.read_until("> ")
    terminal.type("go on\r")
    terminal.read_until("on and on and ")
    terminal.type("\x03")
    terminal.read_until("resident]\n> ")
    terminal.type("half a line")
    terminal.read_until("half a line")
    terminal.type("/stats\x01\x0b\r")  # the line killed: an empty one, and Ctrl-C counts anew
    terminal.read_until("> ")
    terminal.type("half a line\x03")
    terminal.read_until("leaves, and so does /quit\n> ")
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert "Traceback" not in terminal.raw.decode()
    (question, reply) = said(state)
    assert (question.content, reply.partial) == ("go on", True) and reply.content.startswith("on and on and ")


def test_ctrl_c_twice_in_a_reply_leaves(fake: Open, state: Path) -> None:
    terminal = fake("endless")
    terminal.read_until("> ")
    terminal.type("go on\r")
    terminal.read_until("on and on and ")
    terminal.press_until_it_ends("\x03")  # two at once would be one signal
    assert terminal.wait() == 130
    assert said(state)[-1].partial


def test_a_pipe_behind_stdout_gets_answers_only(fake: Open, tmp_path: Path) -> None:
    terminal = fake("red", stdout=str(tmp_path / "answers"))
    assert "/help" in terminal.read_until("> ")
    terminal.type("hi\r")
    terminal.read_until("resident]\n> ")
    terminal.type("/quit\r")
    assert terminal.wait() == 0
    assert (tmp_path / "answers").read_bytes().decode() == "\x1b[31mr\u00e9d\u009b1m\r\x07.\n"


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_text_does_not_steer_the_terminal(fake: Open, term: str) -> None:
    terminal = fake("red", term=term)
    terminal.read_until("> ")
    terminal.type("hi\r")
    terminal.read_until("resident]\n> ")
    assert "\u241b[31mr\u00e9d\ufffd1m\u240d\u2407.\r\n" in terminal.raw.decode()


def test_a_sequence_in_pieces_does_not_steer_it_either(fake: Open) -> None:
    terminal = fake("split")
    terminal.read_until("> ")
    terminal.type("hi\r")
    terminal.read_until("resident]\n> ")
    assert "\u241b]0;mine\u2407\ufffd2J\u241b[2J.\r\n" in terminal.raw.decode()


STEERING = (b"\x1b]0;mine\x07", b"\x1b[2J", b"\xc2\x9b2J", b"\x7f")
SHOWN = ("\u241b]0;mine\u2407", "\u241b[2J", "\ufffd2J", "\u2421")


@pytest.fixture(scope="module")
def hostile(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose name, licence and words would steer a terminal."""
    file = take_apart(tiny("llama").read_bytes())
    words = [text * (number + 1) for number in range(20) for text in STEERING]
    with_words = [*strings(file, b"tokenizer.ggml.tokens")[: -len(words)], *words]
    put(file, b"tokenizer.ggml.tokens", with_words)
    put(file, b"general.name", b"".join(STEERING))
    put(file, b"general.license", b"\n" + STEERING[0])
    path = tmp_path_factory.mktemp("hostile") / "\x1b[2Jmodel.gguf"
    path.write_bytes(file.to_bytes())
    return path


@pytest.fixture
def on_terminal() -> Iterator[Callable[..., str]]:
    """What a command sends to a terminal until it ends."""
    shown: list[Terminal] = []

    def start(*arguments: object, **how: str) -> str:
        shown.append(Terminal([*COMMAND, *arguments], **how))
        return shown[-1].read_all()

    yield start
    for terminal in shown:
        terminal.close()


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        pytest.param(["models", "inspect", "{}"], SHOWN, id="inspect"),
        pytest.param(["models", "list", "--dir", "{parent}"], SHOWN[1:2], id="list"),
        pytest.param(["generate", "-m", "{}x", "-p", "Hi"], SHOWN[1:2], id="an error"),
        pytest.param("generate -m {} --threads 1 -p Hi -n 100 --seed 1 --sampler llama".split(), SHOWN[:2], id="text"),
    ],
)
def test_a_file_does_not_steer_the_terminal(
    on_terminal: Callable[..., str], hostile: Path, arguments: list[str], wanted: list[str]
) -> None:
    raw = on_terminal(*(argument.format(hostile, parent=hostile.parent) for argument in arguments))
    assert not set(raw) & {*map(chr, range(9)), "\x1b", "\x7f", *map(chr, range(128, 160))}
    assert all(text in raw for text in wanted), raw


def test_a_pipe_gets_what_the_model_wrote_to_the_letter(hostile: Path) -> None:
    written = run(
        "generate", "-m", hostile, "--threads", 1, "-p", "Hi", "-n", 100, "--seed", 1, "--sampler", "llama"
    ).stdout
    assert "\x1b]0;mine\x07" in written and "\x1b[2J" in written and "\u241b" not in written


def test_drafted_tokens_are_green(fake: Open) -> None:
    terminal = fake("red", "--show", "draft")
    terminal.read_until("> ")
    terminal.type("hi\r")
    terminal.read_until("resident]\n> ")
    assert "\x1b[32m\u241b\x1b[0m\x1b[32m[\x1b[0m" in terminal.raw.decode() and "\x1b[0md" in terminal.raw.decode()
    terminal.type("/show off\rhi\r")
    before = len(terminal.raw)
    terminal.read_until("resident]\n> ")
    assert "\x1b[32m" not in terminal.raw.decode()[before:]


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"term": "dumb"}])
def test_no_colours_where_they_are_not_wanted(fake: Open, environment: dict[str, str]) -> None:
    terminal = fake("red", "--show", "draft", **environment)
    terminal.read_until("> ")
    terminal.type("hi\r")
    terminal.read_until("resident]\n> ")
    assert "\x1b[32m" not in terminal.raw.decode() and "\u241b[31mr\u00e9d" in terminal.raw.decode()


def test_a_long_prompt_shows_how_long_it_will_take_and_then_vanishes(fake: Open) -> None:
    terminal = fake("long")
    terminal.read_until("> ")
    terminal.type("hi\r")
    shown = terminal.read_until("resident]\n> ")
    assert re.fullmatch(r"> hi\nYes\.\n\[.*\]\n>", shown)
    assert re.search(r"reading the prompt \[#{6}\.{14}\] 33%, 0 s left", terminal.raw.decode())


def test_what_was_typed_is_remembered_and_private(fake: Open, state: Path) -> None:
    terminal = fake("slow")
    terminal.read_until("> ")
    terminal.type("secret\r")
    terminal.read_until("resident]\n> ")
    terminal.type("/quit\r")
    assert terminal.wait() == 0
    assert "+secret\n" in (state / "cadcpp" / "history").read_text()
    assert os.stat(state / "cadcpp" / "history").st_mode & 0o077 == 0


# What a line looks like. ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "left", "width", "line"),
    [
        pytest.param(0.0, None, 79, "reading [....................] 0%", id="at first"),
        pytest.param(0.43, 12.4, 79, "reading [########............] 43%, 12 s left", id="on the way"),
        pytest.param(1.2, 0.0, 79, "reading [####################] 100%, 0 s left", id="more than all"),
        pytest.param(0.43, 130, 30, "reading 43%, 2 min 10 s left", id="narrow"),
        pytest.param(0.43, 130, 9, "reading 4", id="very narrow"),
    ],
)
def test_a_bar(share: float, left: float | None, width: int, line: str) -> None:
    assert bar_line("reading", share, left, width) == line


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (11100, "3 h 5 min")]
)
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_printable_text_keeps_letters_lines_and_tabs() -> None:
    assert printable("caf\u00e9\t\u4f60\u597d\n") == "caf\u00e9\t\u4f60\u597d\n"
    assert printable("".join(map(chr, [*range(9), *range(11, 32), *range(127, 160)]))).isprintable()
