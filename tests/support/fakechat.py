"""A chat without a model: a session that plays what it is given, and a process to kill in mid-reply."""

import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cadcpp.chat.template
import cadcpp.cli.chat
import cadcpp.cli.chat.keyboard
from cadcpp.cli import main
from cadcpp.errors import ConfigError
from cadcpp.residency.pager import NullPager
from cadcpp.runtime.round import Round
from cadcpp.runtime.session import Chunk
from cadcpp.tree.token_tree import TokenTree
from cadcpp.verify.accept import Accepted

Step = Chunk | Exception | Callable[[Callable[[int, int], None]], None]
PROSE = "Weights are read in the same order on every pass, so that a cache evicts each page right before it is needed."
WORDS = "a reply that goes on and on, word by word, until somebody ends it".split()


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

    model = SimpleNamespace(path=Path("fake.gguf"), piece=lambda token: chr(token).lower().encode())
    pager = NullPager()
    load_seconds = 0.5
    resident_share = 0.25
    context = SimpleNamespace(shape=SimpleNamespace(n_cells=256, states=None), model=SimpleNamespace(header=None))
    engine = SimpleNamespace(verifier=SimpleNamespace(cache=SimpleNamespace(clear=lambda: None, context=context)))

    def __init__(self, replies: Iterable[Iterable[Step]]) -> None:
        self._replies = iter(replies)
        self.prompts: list[str] = []
        self.seeds: list[int] = []
        self.n_closed = 0

    def __enter__(self) -> "FakeSession":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.n_closed == len(self.prompts), "a stream outlived its session"

    def stream(
        self, prompt: list[int], sampling: Any, _n: int, *, stats: Any, progress: Callable[[int, int], None]
    ) -> Generator[Chunk, None, None]:
        self.prompts.append("".join(map(chr, prompt)))
        self.seeds.append(sampling.seed)
        try:
            for step in next(self._replies):
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, Chunk):
                    stats.passes += 1
                    stats.emitted += len(step.tokens)
                    yield step
                else:
                    step(progress)
        finally:
            self.n_closed += 1


def chunk(text: str, finish: str | None = None) -> Chunk:
    """One round: all of its letters but the last were drafted. Tokens are upper case, to tell them from the text."""
    tokens = [ord(letter.upper()) for letter in text]
    drafted = tokens[:-1] or [ord("X")]
    tree = TokenTree.build([0, *drafted], range(-1, len(drafted)), [-0.1 * i for i in range(len(drafted) + 1)])
    accepted = Accepted(list(range(max(len(tokens), 1))), tokens[-1] if tokens else 0)
    return Chunk(text, tokens, finish, Round(tokens, tree, accepted, finish))


def say(*texts: str, finish: str | None = "stop") -> list[Chunk]:
    """A reply in pieces."""
    return [*map(chunk, texts[:-1]), chunk(texts[-1], finish)]


def interrupt(_progress: Callable[[int, int], None]) -> None:
    """Ctrl-C right now."""
    os.kill(os.getpid(), signal.SIGINT)


def replace_session(session: FakeSession, replace: Callable[[Any, str, object], None]) -> None:
    """Make `cadcpp chat` talk with ``session``; ``replace`` is setattr, or a fixture's."""
    replace(cadcpp.cli.chat, "open_session", lambda **_: session)
    replace(cadcpp.chat.template, "Template", FakeTemplate)


def _slowly() -> Generator[Chunk, None, None]:
    for word in WORDS:
        time.sleep(0.002)
        yield chunk(f"{word} ")
    yield chunk(".", "stop")


def _endlessly() -> Generator[Chunk, None, None]:
    while True:
        time.sleep(0.01)
        yield chunk("on and ")


def _read(progress: Callable[[int, int], None]) -> None:
    for n in (100, 400, 1000):
        progress(n, 1000)
        time.sleep(0.05)


def _wait(_progress: Callable[[int, int], None]) -> None:
    """Until the test makes a file."""
    while not Path(os.environ["WAIT_FOR"]).exists():
        time.sleep(0.01)


REPLIES: dict[str, Callable[[], Iterable[Step]]] = {
    "slow": _slowly,
    "endless": _endlessly,
    "long": lambda: [_read, *say("Yes.")],
    "waits": lambda: [chunk("one "), _wait, *say("two")],
    "fails": lambda: [chunk("one tw"), _wait, RuntimeError("a mistake in the program")],
    "prose": lambda: say(*(f" {word}" for word in PROSE.split())),
    "red": lambda: say("\x1b[31mr\u00e9d", "\x9b1m\r\x07."),
    "split": lambda: say("\x1b", "]0;mine", "\x07", "\x9b", "2J", "\x1b", "[", "2J", "."),
}

if __name__ == "__main__":  # `python -m tests.support.fakechat KIND ...`: a chat for terminals and for being killed
    replace_session(FakeSession(iter(REPLIES[sys.argv[1]], None)), setattr)
    if os.environ.get("ECHO"):  # as if nobody had switched it off
        setattr(cadcpp.cli.chat.keyboard, "silent_keyboard", nullcontext)  # noqa: B010
    main(["chat", "-m", "fake.gguf", *sys.argv[2:]])
