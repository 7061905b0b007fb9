"""The REPL: whole transcripts with a scripted session, then real models and a real terminal."""

import os
import signal
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

import cadcpp.cli.chat
import cadcpp.native.template
from cadcpp.cli import main
from cadcpp.errors import ConfigError, ContextFull, NativeError
from cadcpp.session import Chunk

Step = Chunk | Exception | Callable[[Callable[[int, int], None]], None]


class FakeTemplate:
    """A template that people can read; a token is a character."""

    def __init__(self, _model: object = None) -> None:
        pass

    def render(self, messages: list[dict[str, str]]) -> str:
        if "refuse" in messages[-1]["content"]:
            raise ConfigError("the chat template refuses this conversation")
        return "".join(f"<{m['role'][0]}>{m['content']}</>" for m in messages) + "<a>"

    def tokenize(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]


class FakeSession:
    """Plays one list of steps per reply and remembers what it was asked."""

    model = SimpleNamespace(path=Path("fake.gguf"))
    load_seconds = 0.5

    def __init__(self, replies: Sequence[Sequence[Step]]) -> None:
        self._replies = list(replies)
        self.prompts: list[str] = []
        self.n_closed = 0

    def __enter__(self) -> "FakeSession":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.n_closed == len(self.prompts), "a stream outlived its session"

    def stream(
        self, prompt: list[int], _sampling: object, _n: int, *, stats: Any, progress: Callable[[int, int], None]
    ) -> Generator[Chunk, None, None]:
        self.prompts.append("".join(map(chr, prompt)))
        try:
            for step in self._replies.pop(0):
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, Chunk):
                    stats.passes += 1
                    yield step
                else:
                    step(progress)
        finally:
            self.n_closed += 1


def say(*texts: str, finish: str = "stop") -> list[Chunk]:
    """A reply in pieces; its tokens are its letters in upper case, to tell them from its text."""
    last = len(texts) - 1
    return [Chunk(t, [ord(c.upper()) for c in t], finish if i == last else None) for i, t in enumerate(texts)]


def interrupt(progress: Callable[[int, int], None]) -> None:
    """Ctrl-C right now."""
    os.kill(os.getpid(), signal.SIGINT)


def interrupt_prompt(progress: Callable[[int, int], None]) -> None:
    """Ctrl-C while the prompt is being evaluated."""
    progress(512, 2048)
    os.kill(os.getpid(), signal.SIGINT)
    progress(1024, 2048)
    raise AssertionError("went on after Ctrl-C")


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Result, FakeSession]]:
    def run(lines: str | bytes, *replies: Sequence[Step], options: Sequence[str] = ()) -> tuple[Result, FakeSession]:
        session = FakeSession(replies)
        monkeypatch.setattr(cadcpp.cli.chat, "open_session", lambda **_: session)
        monkeypatch.setattr(cadcpp.native.template, "Template", FakeTemplate)
        result = CliRunner().invoke(main, ["chat", "-m", "fake.gguf", *options], input=lines, catch_exceptions=False)
        return result, session

    return run


Chat = Callable[..., tuple[Result, FakeSession]]


def test_answers_go_to_stdout_and_nothing_else_does(chat: Chat) -> None:
    result, session = chat("Hi\n\nHow are you?\n", say("Hel", "lo!"), say("Fine."))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Hello!\nFine.\n", "")
    assert session.prompts == ["<u>Hi</><a>", "<u>Hi</><a>HELLO!</><u>How are you?</><a>"]


def test_the_last_line_needs_no_end(chat: Chat) -> None:
    assert chat("Hi", say("Hello!"))[0].stdout == "Hello!\n"


def test_no_input_no_answer(chat: Chat) -> None:
    result, _ = chat("")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_a_reply_ends_its_line_once(chat: Chat) -> None:
    assert chat("a\nb\nc\n", say("x\n"), say(""), say("y"))[0].stdout == "x\n\ny\n"


def test_quit_leaves_at_once(chat: Chat) -> None:
    result, session = chat("/quit\nHi\n")
    assert (result.stdout, session.prompts) == ("", [])


def test_commands_speak_on_stderr(chat: Chat) -> None:
    result, _ = chat("/help\n/stats\n/nope more\n")
    assert result.stdout == ""
    assert result.stderr == f"{cadcpp.cli.chat.HELP}\nno reply yet\nno command /nope: /help lists them\n"


def test_stats_are_those_of_the_last_reply(chat: Chat) -> None:
    result, _ = chat("Hi\n/stats\n", say("Hel", "lo!"))
    figures = dict(line.split() for line in result.stderr.splitlines())
    assert (figures["completion_tokens"], figures["passes"], figures["finish_reason"]) == ("6", "2", "stop")


def test_reset_forgets(chat: Chat) -> None:
    result, session = chat("Hi\n/reset\nBye\n", say("one"), say("two"))
    assert (result.stdout, result.stderr) == ("one\ntwo\n", "forgotten\n")
    assert session.prompts[1] == "<u>Bye</><a>"


def test_ctrl_c_stops_the_reply_and_keeps_its_part(chat: Chat) -> None:
    result, session = chat("Hi\nGo on\n", [*say("one", finish=""), interrupt, *say("two", "three")], say("four"))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "onetwo\nfour\n", "")
    assert session.prompts[1] == "<u>Hi</><a>ONETWO</><u>Go on</><a>"


def test_ctrl_c_before_the_first_word_takes_the_question_back(chat: Chat) -> None:
    result, session = chat("Hi\nlong\nBye\n", say("one"), [interrupt_prompt], say("two"))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "one\ntwo\n", "")
    assert session.prompts[2] == "<u>Hi</><a>ONE</><u>Bye</><a>"


def test_a_question_that_does_not_fit_is_taken_back(chat: Chat) -> None:
    result, session = chat("Hi\nlong\nBye\n", say("one"), [ContextFull("the context is full")], say("two"))
    assert (result.exit_code, result.stdout) == (0, "one\ntwo\n")
    assert result.stderr == "cadcpp: the context is full; /reset starts over\n"
    assert session.prompts[2] == "<u>Hi</><a>ONE</><u>Bye</><a>"


def test_a_failure_in_mid_reply_keeps_its_part(chat: Chat) -> None:
    result, session = chat("Hi\nGo on\n", [*say("one", finish=""), NativeError("no luck")], say("two"))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "one\ntwo\n", "cadcpp: no luck\n")
    assert session.prompts[1] == "<u>Hi</><a>ONE</><u>Go on</><a>"


def test_a_question_that_the_template_refuses_is_taken_back(chat: Chat) -> None:
    result, session = chat("refuse\nHi\n", say("one"))
    assert (result.stdout, result.stderr) == ("one\n", "cadcpp: the chat template refuses this conversation\n")
    assert session.prompts == ["<u>Hi</><a>"]


@pytest.mark.parametrize(
    ("n", "remark"),
    [
        pytest.param("3", "[cut after 3 tokens: raise -n for longer replies]\n", id="by -n"),
        pytest.param("9", "[cut after 3 tokens, the context is full: raise --ctx, or /reset]\n", id="by the context"),
    ],
)
def test_a_reply_that_was_cut_says_so(chat: Chat, n: str, remark: str) -> None:
    result, _ = chat("Hi\n", say("one", finish="length"), options=["-n", n])
    assert (result.stdout, result.stderr) == ("one\n", remark)


def test_bytes_that_are_no_text_do_not_end_the_session(chat: Chat) -> None:
    result, session = chat(b"caf\xe9\nHi\n", say("one"), say("two"))
    assert (result.exit_code, result.stdout) == (0, "one\ntwo\n")
    assert session.prompts[0] == "<u>caf�</><a>"
