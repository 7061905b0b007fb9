"""What fails inside: llama_decode, a cache or a context that is full, and two processes on one model."""

import random
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.errors import ContextFull, NativeError
from cadcpp.native.context import Context
from cadcpp.native.model import Model
from cadcpp.residency.context_shape import ContextShape
from cadcpp.runtime.session import Session
from tests.support.command import run

GREEDY = SamplingConfig(temperature=0.0)
PROMPT = list(range(10, 40))


@pytest.fixture(scope="module")
def session(tiny: Callable[..., Path]) -> Iterator[Session]:
    """With trees: a draft that agrees at times."""
    config = SessionConfig(n_ctx=256, n_threads=1, speculative="draft", fallback="none")
    with Session(tiny("llama"), tiny("llama", noise=0.1), config) as session:
        yield session


def write(session: Session, prompt: list[int] = PROMPT, n: int = 24) -> list[int]:
    return [t for chunk in session.stream(prompt, GREEDY, n) for t in chunk.tokens]


@pytest.mark.parametrize("seed", range(12))
def test_a_decode_that_fails_leaves_both_caches_right(
    session: Session, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Any decode, of the draft or the verifier, half of the time after it has filled cells."""
    text, rng, decode = write(session), random.Random(seed), Context.decode
    left, late = iter(range(rng.randrange(30), -1, -1)), rng.random() < 0.5

    def fail(context: Context, *arguments: Any) -> None:
        fails = not next(left, 1)
        if late or not fails:
            decode(context, *arguments)
        if fails:
            raise NativeError("llama_decode failed")

    with monkeypatch.context() as patch, pytest.raises(NativeError):
        patch.setattr(Context, "decode", fail)
        for i in range(40):
            write(session, [50 + i, *PROMPT])
    assert write(session) == text


def test_a_full_cache_is_an_error_and_can_be_emptied(tiny: Callable[..., Path]) -> None:
    shape = ContextShape(n_cells=256, n_batch=64, n_outputs=1, n_seq=1)
    with closing(Model(tiny("llama"))) as model, closing(Context(model, shape, 1)) as context:

        def fill(start: int) -> None:
            context.batch.clear()
            context.batch.add([5] * 64, start, 0, 1, False)
            context.decode()

        for start in range(0, 256, 64):
            fill(start)
        with pytest.raises(NativeError, match="failed with code 1"):
            fill(256)
        context.trim(0, 192)
        fill(192)


def test_a_full_context_ends_the_reply_and_refuses_the_next(session: Session) -> None:
    chunks = list(session.stream(PROMPT, GREEDY, 1000))
    tokens = [t for chunk in chunks for t in chunk.tokens]
    assert chunks[-1].finish == "stop" or len(PROMPT) + len(tokens) == 256
    with pytest.raises(ContextFull, match="shorten it or raise --ctx"):
        write(session, [7] * 256)
    assert write(session) == tokens[:24]


def test_a_chat_that_outgrows_its_context_says_what_helps(sound: Path) -> None:
    stdin = "".join(f"a question, number {i}\n" for i in range(5)) + "/reset\nshort\n"
    done = run("chat", "-m", sound, "--temp", 0, "--ctx", 160, "--threads", 1, "-n", 60, stdin=stdin.encode())
    assert done.returncode == 0 and "/reset" in done.stderr and "Traceback" not in done.stderr
    assert "the context 160: shorten it or raise --ctx; /reset starts over" in done.stderr
    assert "tokens," in done.stderr.split("forgotten")[1]


def test_two_processes_on_one_model_write_what_one_does(sound: Path, half: int) -> None:
    arguments = ["generate", "-m", sound, "--temp", 0, "--ctx", 512, "--threads", 1, "-p", "hello there", "-n", 40]
    ways: list[list[object]] = [[], ["--ram", f"{half}B"], ["--ram", f"{half}B", "--speculative", "off"]]
    with ThreadPoolExecutor() as pool:
        done: list[subprocess.CompletedProcess[str]] = list(pool.map(lambda way: run(*arguments, *way), ways))
    assert [one.returncode for one in done] == [0, 0, 0]
    assert len({one.stdout for one in done}) == 1 and done[0].stdout.strip()
