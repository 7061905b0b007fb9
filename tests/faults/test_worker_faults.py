"""A chat, its worker, and one fault after the other: nothing shown is lost, and the chat goes on after each."""

import fcntl
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cadcpp.chat.transcript import load
from cadcpp.cli.chat.state_dir import Places
from cadcpp.link.protocol import length
from tests.support.command import COMMAND, ROOT
from tests.support.meddler import Meddler
from tests.support.workers import Worker, enough_for, needs_rpc, worker

pytestmark = needs_rpc
N_CTX, N_TOKENS = 512, 60
PATIENCE_S = 300.0  # what never comes must not be waited for for ever
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
VERSION_1 = length(28) + bytes([1, 0, 0, 0]) + bytes(24)
WEB = b"HTTP/1.1 400 Bad Request\r\n\r\n"


@pytest.fixture(scope="module")
def path(tiny: Callable[..., Path]) -> Path:
    """Of tensors that are large enough to be kept by a worker."""
    sizes = {"n_layer": 2, "n_embd": 128, "n_head": 4, "n_head_kv": 2, "n_ff": 90_000}
    return tiny("llama", **sizes, type_name="Q8_0", seed=3, chat_template=TEMPLATE)


class Chat:
    """`cadcpp chat` through pipes."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        self._kill = process.kill
        self._in, self._out, self._err = process.stdin, process.stdout, process.stderr
        fcntl.fcntl(self._out, fcntl.F_SETFL, fcntl.fcntl(self._out, fcntl.F_GETFL) | os.O_NONBLOCK)

    def say(self, line: str, *ends: str) -> tuple[str, str]:
        """The line on stderr that has one of these words in it, and what came on stdout before."""
        self._in.write(f"{line}\n".encode())
        passed, watchdog = [], threading.Timer(PATIENCE_S, self._kill)
        watchdog.start()
        try:
            for told in self._err:
                passed.append(told.decode("utf-8", "replace"))
                assert "Traceback" not in passed[-1]
                if any(end in passed[-1] for end in ends):
                    return passed[-1].rstrip("\n"), self._shown()
            raise AssertionError(f"none of {ends} is among {passed}")
        finally:
            watchdog.cancel()

    def _shown(self) -> str:
        return (self._out.read() or b"").decode("utf-8", "replace").rstrip("\n")


@contextmanager
def chat(path: Path, meddler: Meddler) -> Iterator[Chat]:
    sizes = ["--ctx", str(N_CTX), "--threads", "1", "--max-tree-size", "8", "--fallback", "none", "--temp", "0"]
    command = [*COMMAND, "chat", "-m", str(path), *sizes, "-n", str(N_TOKENS), "--workers", str(meddler.address)]
    environment, pipe = {**os.environ, "GGML_NO_BACKTRACE": "1"}, subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, cwd=ROOT, env=environment
    ) as process:
        try:
            yield Chat(process)
        finally:
            process.kill()


class Trial:
    """A chat with a worker whose reply to one question is known, and what may happen to both."""

    def __init__(self, talk: Chat, there: Worker, meddler: Meddler, cache: Path, seed: int) -> None:
        self.meddler, self._talk, self._there, self._cache = meddler, talk, there, cache
        self._rng = np.random.default_rng(seed)
        _, self._reply = talk.say("abc", "tokens, ")
        assert len(self._reply) > 10
        meddler.heal()
        self.ask()
        self._n_reply = meddler.passed  # bytes that go over the link
        meddler.heal()
        self.connect()
        self._n_start = meddler.passed

    def ask(self) -> None:
        """The reply is what it always is."""
        self._talk.say("/reset", "forgotten")
        _, shown = self._talk.say("abc", "tokens, ")
        assert shown == self._reply and self._kept() == shown

    def lose(self, act: Callable[[], object]) -> str:
        """Something happens in the middle of a reply: what was shown of it is kept. Gives what is told."""
        self._talk.say("/reset", "forgotten")
        self.meddler.after(int(self._rng.integers(self._n_reply * 8 // 10)), act)
        told, shown = self._talk.say("abc", "is lost")
        assert self._reply.startswith(shown) and self._kept() == shown
        assert told.endswith("; /reconnect goes on with the workers that are there")
        return told

    def connect(self) -> None:
        self._talk.say("/reconnect", f"goes on with {self.meddler.address}")

    def miss(self) -> str:
        """The worker is not to be had, and the chat does without. Gives what is told."""
        told, _ = self._talk.say("/reconnect", "until /reconnect this machine goes on without it")
        self._talk.say("", "goes on without workers")
        self.ask()
        return told

    def lose_early(self) -> str:
        """The link breaks at some point of a start."""
        self.meddler.after(int(self._rng.integers(self._n_start)), self.meddler.cut)
        told, _ = self._talk.say("/reconnect", "is lost", "until /reconnect", f"goes on with {self.meddler.address}")
        return told

    def kill(self) -> None:
        self._there.kill()

    def stop(self) -> None:
        for server in self._there.servers:
            server.stop()

    def leave(self) -> None:
        """The worker goes, and its address with it."""
        self.meddler.shut()
        self._there.kill()

    def damage(self, how: Callable[[Path], object]) -> None:
        """One of the files that the worker keeps."""
        files = sorted(file for file in self._cache.iterdir() if not file.suffix)
        how(files[self._rng.integers(len(files))])

    def _kept(self) -> str:
        """The last reply, as it is on disk; empty if there is none, since nothing was shown."""
        last = Places.found().last_chat()
        messages = load(last) if last is not None else []
        return messages[-1].content.rstrip("\n") if messages and messages[-1].role == "assistant" else ""


def in_a_reply(act: Callable[[Trial], object]) -> Callable[[Trial], str]:
    return lambda trial: trial.lose(partial(act, trial))


def at_a_start(greeting: bytes) -> Callable[[Trial], str]:
    def fault(trial: Trial) -> str:
        trial.meddler.greeting = greeting
        return trial.miss()

    return fault


def on_disk(how: Callable[[Path], object]) -> Callable[[Trial], str]:
    def fault(trial: Trial) -> str:
        trial.damage(how)
        return "nothing: it is sent again"

    return fault


def nobody(trial: Trial) -> str:
    trial.meddler.shut()
    told = trial.miss()
    trial.meddler.listen_again()
    return told


def gone(trial: Trial) -> str:
    told = trial.lose(trial.leave)
    trial.miss()
    trial.meddler.listen_again()
    return told


def slow(trial: Trial) -> str:
    trial.meddler.delay_s = 0.003
    trial.ask()
    return "nothing: it is waited for"


def scramble(file: Path) -> None:
    n_bytes = file.stat().st_size
    with file.open("r+b") as stream:
        stream.seek(n_bytes // 3)
        stream.write(np.random.default_rng(0).bytes(n_bytes // 3))


FAULTS: dict[str, Callable[[Trial], str]] = {  # each gives what is told of it
    "the worker is killed": in_a_reply(Trial.kill),
    "the link is cut": in_a_reply(lambda trial: trial.meddler.cut()),
    "noise in the place of a reply": in_a_reply(lambda trial: setattr(trial.meddler, "babbles_here", True)),
    "noise in the place of a request": in_a_reply(lambda trial: setattr(trial.meddler, "babbles_there", True)),
    "the worker dies, and is away for a while": gone,
    "the link is slow": slow,
    "the link is cut while layers are sent": Trial.lose_early,
    "nobody is there": nobody,
    "another version is there": at_a_start(VERSION_1),
    "a web server is there": at_a_start(WEB),
    "a third of a kept tensor is noise": on_disk(scramble),
    "half of a kept tensor is there": on_disk(lambda file: os.truncate(file, file.stat().st_size // 2)),
    "a kept tensor has no checksum": on_disk(lambda file: file.with_suffix(".crc32").unlink()),
    "the worker hangs": in_a_reply(Trial.stop),
    "the cable is pulled": in_a_reply(lambda trial: setattr(trial.meddler, "swallows", True)),
}
SILENT = 2  # of them, at the end: each is waited for for 20 seconds


def provoke(path: Path, cache: Path, kinds: list[str], seed: int) -> Iterator[tuple[str, str]]:
    """One fault after the other in the same chat; gives each with what is told of it."""
    with worker(enough_for(path, 1, N_CTX), cache) as there, closing(Meddler(there.address, seed)) as meddler:
        with chat(path, meddler) as talk:
            trial = Trial(talk, there, meddler, cache, seed)
            for kind in kinds:
                told = FAULTS[kind](trial)
                meddler.heal()
                trial.connect()
                trial.ask()
                yield kind, told


def drawn(seed: int, n: int, n_kinds: int) -> list[str]:
    """That many faults, of all kinds as often."""
    kinds, rng = [*FAULTS][:n_kinds], np.random.default_rng(seed)
    return [kind for _ in range(-(-n // n_kinds)) for kind in rng.permutation(kinds).tolist()][:n]


@pytest.mark.parametrize(
    ("n", "n_kinds"),
    [
        pytest.param(3, len(FAULTS) - SILENT, id="3"),
        pytest.param(50, len(FAULTS), id="50", marks=pytest.mark.slow),
    ],
)
def test_a_chat_outlives_faults(path: Path, tmp_path: Path, n: int, n_kinds: int) -> None:
    faults = list(provoke(path, tmp_path, drawn(5, n, n_kinds), seed=5))
    assert len(faults) == n and all(told for _, told in faults)
