"""The command line with real models: in a pipe, over two turns, and in a terminal."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import cadcpp.system.disk_speed
from cadcpp.chat.conversation import Conversation
from cadcpp.chat.template import Template
from cadcpp.cli import main
from cadcpp.cli.chat.banner import screen
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.draft.model_drafter import ModelDrafter
from cadcpp.gguf.header import read_header
from cadcpp.models.demo import DemoPair
from cadcpp.native.context import Context
from cadcpp.native.layer_reports import OnLayer
from cadcpp.residency.memory_plan import make_plan
from cadcpp.runtime.session import Chunk, Session
from cadcpp.util.byte_size import format_size
from tests.support.command import COMMAND, run
from tests.support.terminal import Terminal

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


def test_a_chat_that_goes_on_is_the_chat_that_never_ended(pair: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*pair, "--temp", 0, "-n", 16, "--fallback", "none"]  # else costs decide whether the draft reads at all
    whole = run("chat", *options, "--system", "You are a sailor.", stdin=b"Name three colours.\nWhich is warm?\n")
    first = run("chat", *options, "--system", "You are a sailor.", "--save-kv-cache", stdin=b"Name three colours.\n")
    counter = Counter(monkeypatch)
    second = CliRunner().invoke(main, ["chat", *map(str, options), "--continue"], input="Which is warm?\n")
    assert (second.exit_code, first.stdout + second.stdout) == (0, whole.stdout)
    head, *foot = second.stderr.splitlines()
    assert head.startswith("goes on with ") and head.endswith(", 1 question")
    assert re.fullmatch(r"\[16 tokens, .*/s, .* a pass, .*B read a token, 100% resident\]", foot[0])
    assert foot[1:] == ["[cut after 16 tokens: /set n 32 allows longer replies]"]
    of_draft, of_verifier = sorted(min(positions) for positions in counter.positions.values())
    assert of_draft == 0 and of_verifier > 30  # the verifier need not read the first turn again


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
            assert min(positions) >= len(known) - 1 - session.config.tree.max_size // 4
            text = [p for p in positions if p < len(second) - 1]
            assert len(text) == len(set(text))  # each of them once
        assert session.engine.verifier.cache.tokens[: len(known)] == known


def finish(conversation: Conversation, prompt: list[int], chunks: list[Chunk]) -> list[int]:
    """Put a reply into the conversation; returns the ids of everything so far."""
    tokens = [token for chunk in chunks for token in chunk.tokens]
    conversation.answer("".join(chunk.text for chunk in chunks), tokens)
    return prompt + tokens


@pytest.fixture
def terminal(pair: list[object]) -> Iterator[Terminal]:
    if sys.platform == "win32":
        pytest.skip("no pseudo terminals here")
    shown = Terminal([*COMMAND, "chat", *pair, "--temp", 0, "-n", 300], term="dumb")
    yield shown
    shown.close()


def test_ctrl_c_stops_the_reply_and_not_the_session(terminal: Terminal, pair: list[object]) -> None:
    start = terminal.read_until("> ")
    assert all(
        word in start for word in ("verifier", "drafting", "context", "1024 tokens", "all stay in memory", "/help")
    )
    terminal.type("Count from one to a thousand, in words.\r")
    terminal.read_until("", at_least=80)
    terminal.type("\x03")
    end = terminal.read_until("resident]\n> ")
    assert "Traceback" not in end and "[cut after" not in end  # the reply would have gone on
    terminal.type("/tree\r")
    assert "the verifier's own: " in terminal.read_until("\n> ")
    terminal.type("/reset\r")
    terminal.read_until("forgotten\n> ")

    question = "What is a cat?"
    alone = run("generate", *pair, "--chat", "--temp", 0, "-n", 300, "-p", question).stdout
    terminal.type(f"{question}\r")
    shown = terminal.read_until("resident]\n> ")
    assert squeezed(shown).startswith(squeezed(f"> {question}\n{alone}["))
    terminal.type("/quit\r")
    assert terminal.wait() == 0


def squeezed(text: str) -> str:
    """Without the blanks, some of which a terminal's line ends swallow."""
    return "".join(text.split())


def test_what_will_run_behind_the_wall(verifier: Path, demo: DemoPair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cadcpp.system.disk_speed, "disk_bytes_per_s", lambda *_: 100e6)
    headers = read_header(verifier), read_header(demo.draft)
    config = SessionConfig(n_ctx=1024, n_threads=2, threads_because="as asked")
    plan = make_plan(*headers, ram=320 << 20, n_ctx=1024, rows=64)
    assert plan.streams
    lines = dict(line.split(maxsplit=1) for line in screen(plan, config, (verifier, demo.draft)).splitlines())
    read, alone, together = format_size(plan.read_bytes), plan.read_bytes / 100e6, plan.read_bytes / 500e6
    assert lines == {
        "verifier": f"{verifier.name}, {format_size(sum(t.n_bytes for t in headers[0].tensors))}",
        "drafting": f"{demo.draft.name}, {format_size(headers[1].n_bytes)}",
        "context": "1024 tokens",
        "threads": "2: as asked",
        "memory": f"{format_size(plan.peak)} of 336 MB",
        "weights": f"{format_size(plan.layout.pinned_bytes)} stay in memory, {read} are streamed",
        "speed": f"a pass reads {read} at 100 MB/s: {alone:.2g} s a token or more, {together:.2g} s at 5 tokens a pass",
    }
