"""The command line with real models: in a pipe, over two turns, and in a terminal."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cadcpp.chat import Conversation
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.drafter import ModelDrafter
from cadcpp.native.context import Context, OnLayer
from cadcpp.native.template import Template
from cadcpp.session import Chunk, Session
from cadcpp.tools.demo import DemoPair
from tests.support.command import COMMAND, ROOT, run

pytestmark = pytest.mark.real

GREEDY = SamplingConfig(temperature=0.0)


@pytest.fixture(scope="module")
def verifier(smollm2: Callable[[str], Path]) -> Path:
    return smollm2("Q8_0")


@pytest.fixture(scope="module")
def pair(verifier: Path, demo: DemoPair) -> list[object]:
    return ["-m", verifier, "-d", demo.draft, "--ctx", 1024, "--threads", 1]  # 1: spinning threads crawl on busy cores


def test_an_answer_in_a_pipe_is_alone_on_stdout(pair: list[object]) -> None:
    options = ["--chat", "--temp", 0, "-n", 24]
    piped = run("generate", *pair, *options, stdin=b"Name three colours.")
    plain = run("generate", *pair, *options, "--speculative", "off", "-p", "Name three colours.")
    assert piped.returncode == 0 and piped.stdout == plain.stdout
    assert len(piped.stdout.split()) > 5 and "colours" not in piped.stdout.splitlines()[0].split(":")[0]
    assert len(piped.stderr.splitlines()) == 1 and "24 tokens" in piped.stderr


def test_a_chat_in_a_pipe_answers_like_generate(pair: list[object]) -> None:
    questions = ["Name three colours.", "Write a line about rain."]
    options = ["--temp", 0, "-n", 16]
    chat = run("chat", *pair, *options, stdin="\n/reset\n".join(questions).encode())
    alone = [run("generate", *pair, *options, "--chat", "-p", question).stdout for question in questions]
    assert (chat.returncode, chat.stdout) == (0, "".join(alone))


class Counter:
    """Writes down the positions that every decode evaluates, by context."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.positions: dict[int, list[int]] = {}
        decode = Context.decode

        def counted(context: Context, on_layer: OnLayer | None = None) -> None:
            batch = context.batch
            self.positions.setdefault(id(context), []).extend(batch.pos[: batch.n].tolist())
            decode(context, on_layer)

        monkeypatch.setattr(Context, "decode", counted)

    def take(self, context: Context) -> list[int]:
        return self.positions.pop(id(context))


def test_a_second_turn_evaluates_only_what_is_new(
    verifier: Path, demo: DemoPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter(monkeypatch)
    with Session(verifier, demo.draft, SessionConfig(n_ctx=1024, n_threads=1, fallback="none")) as session:
        engine = session.engine
        assert isinstance(engine.drafter, ModelDrafter)
        contexts = [engine.verifier.context, engine.drafter.context]
        conversation = Conversation(Template(session.model))
        first = conversation.ask("Tell me about the sea, the wind, and the sky over the islands of the north.")
        chunks = list(session.stream(first, GREEDY, 48))
        assert all(min(counter.take(context)) == 0 for context in contexts)

        known = finish(conversation, first, chunks)
        second = conversation.ask("And the stars?")
        assert second[: len(known)] == known and len(second) - len(known) < 20
        chunks = list(session.stream(second, GREEDY, 4))
        for context in contexts:
            positions = counter.take(context)
            # The last round's tokens are not evaluated when the turn ends; all before them are.
            assert min(positions) >= len(known) - 1 - session.config.tree.rows // 4
            text = [p for p in positions if p < len(second) - 1]
            assert len(text) == len(set(text))  # each of them once
        assert session.engine.verifier.cache.tokens[: len(known)] == known


def finish(conversation: Conversation, prompt: list[int], chunks: list[Chunk]) -> list[int]:
    """Put a reply into the conversation; returns the ids of everything so far."""
    tokens = [token for chunk in chunks for token in chunk.tokens]
    conversation.answer("".join(chunk.text for chunk in chunks), tokens)
    return prompt + tokens


class Terminal:
    """A pseudo terminal with `cadcpp chat` in it."""

    def __init__(self, *arguments: object) -> None:
        import pty

        self._fd, self._inner = pty.openpty()  # the inner end stays open here, or reading fails until sh opens it
        # The first terminal that a new session opens is the one whose Ctrl-C it gets.
        script = 'exec "$@" <"$0" >"$0" 2>&1'
        command = ["sh", "-c", script, os.ttyname(self._inner), *COMMAND, *map(str, arguments)]
        self._process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TERM": "dumb"}, start_new_session=True)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def read_until(self, end: str, at_least: int = 0) -> str:
        """What comes up to ``end``, which comes after at least so many letters."""
        import select

        data, stop = b"", time.monotonic() + 300
        while not (len(data) >= at_least and data.decode("utf-8", "ignore").endswith(end)):
            assert time.monotonic() < stop, f"no {end!r} in {data!r}"
            if select.select([self._fd], [], [], 0.1)[0]:
                data += os.read(self._fd, 1024)
        return data.decode().replace("\r\n", "\n")

    def wait(self) -> int:
        return self._process.wait(60)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)
        os.close(self._inner)


@pytest.fixture
def terminal(pair: list[object]) -> Iterator[Terminal]:
    if sys.platform == "win32":
        pytest.skip("no pseudo terminals here")
    shown = Terminal("chat", *pair, "--temp", 0, "-n", 300)
    yield shown
    shown.close()


def test_ctrl_c_stops_the_reply_and_not_the_session(terminal: Terminal, pair: list[object]) -> None:
    assert "/help" in terminal.read_until("> ")
    terminal.type("Count from one to a thousand, in words.\n")
    terminal.read_until("", at_least=80)
    terminal.type("\x03")
    end = terminal.read_until("\n> ")
    assert "Traceback" not in end and "[cut after" not in end  # the reply would have gone on
    terminal.type("/reset\n")
    assert "forgotten" in terminal.read_until("> ")

    question = "What is a cat?"
    alone = run("generate", *pair, "--chat", "--temp", 0, "-n", 300, "-p", question).stdout
    terminal.type(f"{question}\n")
    assert terminal.read_until("\n> ").startswith(f"{question}\n{alone}")
    terminal.type("/quit\n")
    assert terminal.wait() == 0


def test_ctrl_c_and_ctrl_d_at_the_prompt(terminal: Terminal) -> None:
    terminal.read_until("> ")
    terminal.type("half a line")
    terminal.read_until("half a line")
    time.sleep(0.2)  # a signal that comes right before Python waits for input is seen only after the wait
    terminal.type("\x03")
    terminal.read_until("\n> ")
    terminal.type("\x04")
    assert terminal.wait() == 0
