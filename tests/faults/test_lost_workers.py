"""Workers that die, hang, come back or are no workers: one line, nothing shown is lost, and the chat goes on."""

import math
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from cadcpp.chat.transcript import load
from cadcpp.cli.chat.state_dir import Places
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.errors import ModelError, NativeError, WorkerError
from cadcpp.runtime.crew import Crew
from cadcpp.runtime.session import Session
from tests.support.command import COMMAND, ROOT
from tests.support.workers import LIMITS, Wire, Worker, enough_for, needs_rpc, worker

pytestmark = needs_rpc
N_CTX = 512
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture
def path(tiny: Callable[..., Path]) -> Path:
    sizes = {"n_layer": 6, "n_embd": 128, "n_head": 4, "n_head_kv": 2, "n_ff": 256}
    return tiny("llama", **sizes, type_name="Q8_0", seed=3, chat_template=TEMPLATE)


class Chat:
    """`cadcpp chat` through pipes."""

    def __init__(self, path: Path, there: Worker, n: int) -> None:
        sizes = ["--ctx", str(N_CTX), "--threads", "1", "--max-tree-size", "8", "--fallback", "none", "--temp", "0"]
        command = [*COMMAND, "chat", "-m", str(path), *sizes, "-n", str(n), "--workers", str(there.address)]
        environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT, env=environment)

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def told(self, what: str) -> str:
        """The next line on stderr with these words; whatever else is told before is let pass."""
        assert self.process.stderr is not None
        passed = []
        for line in self.process.stderr:
            passed.append(line.decode("utf-8", "replace"))
            if what in passed[-1]:
                return passed[-1]
        raise AssertionError(f"{what!r} is not among {passed}")

    def leave(self) -> str:
        """Everything that it wrote on stdout."""
        out, _ = self.process.communicate(b"/quit\n")
        assert self.process.returncode == 0
        return out.decode("utf-8", "replace")


@contextmanager
def chat(path: Path, there: Worker, n: int = 30) -> Iterator[Chat]:
    started = Chat(path, there, n)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.communicate()


def kept() -> list[tuple[str, str]]:
    """The messages of the last chat, as they are on disk."""
    last = Places.found().last_chat()
    assert last is not None
    return [(message.role, message.content) for message in load(last)]


def test_a_chat_goes_on_without_a_worker_that_died(path: Path) -> None:
    with worker(enough_for(path, 3, N_CTX)) as there, chat(path, there) as talk:
        talk.say("abc")
        talk.told("tokens, ")
        there.kill()
        there.front.close()
        talk.say("def")
        line = talk.told(f"worker {there.address} is lost")
        assert line.endswith("; /reconnect goes on with the workers that are there\n")
        talk.say("/reconnect")
        talk.told(f"no worker at {there.address}")
        talk.told("goes on without workers")
        before = kept()
        talk.say("def")
        talk.told("tokens, ")
        shown = talk.leave()
    after = kept()
    assert [role for role, _ in after] == ["user", "assistant", "user", "assistant"]
    assert before == after[:2] and all(text.strip() in shown for role, text in after if role == "assistant")


def test_a_chat_goes_on_with_a_worker_that_comes_back(path: Path) -> None:
    with worker(enough_for(path, 3, N_CTX)) as there, chat(path, there) as talk:
        talk.say("abc")
        talk.told("tokens, ")
        there.kill()
        talk.say("def")
        talk.told(f"worker {there.address} is lost")
        talk.say("/reconnect")
        talk.told(f"goes on with {there.address}")
        talk.say("def")
        talk.told("tokens, ")
        talk.leave()
    assert [role for role, _ in kept()] == ["user", "assistant", "user", "assistant"]


def test_what_was_shown_before_a_worker_died_is_kept(path: Path) -> None:
    with worker(enough_for(path, 3, N_CTX)) as there, chat(path, there, n=400) as talk:
        talk.say("abc")
        assert talk.process.stdout is not None
        first = talk.process.stdout.read(8)
        there.kill()
        talk.told(f"worker {there.address} is lost")
        shown = (first + talk.leave().encode()).decode("utf-8", "replace")
    ((_, question), (_, reply)) = kept()
    assert question == "abc" and reply and shown.startswith(reply[:2])


@pytest.mark.slow
def test_a_link_that_breaks_anywhere_loses_nothing(path: Path) -> None:
    """After any of the bytes of a session's whole life, 50 times."""
    rng = np.random.default_rng(11)
    with worker(enough_for(path, 3, N_CTX)) as there:
        with closing(Wire(there.address, math.inf)) as wire:
            whole, error = _shown_through(wire, path)
            n_bytes = wire.passed
        assert error is None and len(whole) == 60
        broken = 0
        for cut in rng.integers(1, n_bytes, 50):
            there.settle()
            with closing(Wire(there.address, cut)) as wire:
                shown, error = _shown_through(wire, path)
            assert shown == whole[: len(shown)]
            assert error is None or f"worker {wire.address} is lost" in error or "does not answer" in error
            broken += error is not None
    assert broken > 40


def _shown_through(wire: Wire, path: Path) -> tuple[list[int], str | None]:
    """A reply's tokens as far as they came, and why they ended early."""
    config = SessionConfig(n_ctx=N_CTX, n_threads=1, tree=LIMITS, fallback="none", workers=(wire.address,))
    shown: list[int] = []
    try:
        with Session(path, None, config) as session:
            for chunk in session.stream([1, 40, 41], SamplingConfig(temperature=0), 60):
                shown += chunk.tokens
    except (WorkerError, NativeError, ModelError) as error:
        return shown, str(error)
    return shown, None


@pytest.mark.parametrize("command", ["generate", "plan"])
def test_another_command_ends_in_one_line(path: Path, command: str) -> None:
    with worker(1 << 30) as there:
        address = there.address
    arguments = ["-m", path, "--ctx", N_CTX, "--workers", address, *(["-p", "abc"] if command == "generate" else [])]
    done = subprocess.run([*COMMAND, command, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith(f"cadcpp: no worker at {address} (") and done.stderr.count("\n") == 1


def test_a_worker_that_hangs_is_given_up(path: Path) -> None:
    with worker(enough_for(path, 3, N_CTX)) as there:
        config = SessionConfig(n_ctx=N_CTX, n_threads=1, tree=LIMITS, fallback="none", workers=(there.address,))
        with Session(path, None, config) as session:
            assert isinstance(session.engine.workers, Crew)
            stream = session.stream([1, 40, 41], SamplingConfig(temperature=0), 100)
            next(stream)
            for server in there.servers:
                server.stop()
            for link in session.engine.workers._links.values():
                link._patience_s = 0.1  # from now on: before, a busy machine would be given up
            with pytest.raises(WorkerError, match="no answer in time"):
                list(stream)
