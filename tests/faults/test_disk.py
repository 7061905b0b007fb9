"""A disk that fails or stalls: an error or a wait, never a wrong token, and right again when the disk is."""

import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cadcpp.cli import progress
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.errors import ModelError
from cadcpp.runtime.session import Session
from cadcpp.system.mapping import Mapping

GREEDY = SamplingConfig(temperature=0.0)
PROMPT = list(range(10, 20))


@pytest.fixture(scope="module")
def session(sound: Path, half: int) -> Iterator[Session]:
    with Session(sound, None, SessionConfig(n_ctx=512, n_threads=1, ram=half, speculative="off")) as session:
        assert session.plan.streams and session.model.mapping is not None
        yield session


def write(session: Session) -> list[int]:
    return [t for chunk in session.stream(PROMPT, GREEDY, 6) for t in chunk.tokens]


@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 30))])
def test_a_read_error_ends_the_reply_and_not_the_session(
    session: Session, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The pager's own read fails: the kernel says that a range cannot be populated, and reading says why."""
    text, left = write(session), iter(range(random.Random(seed).randrange(60), -1, -1))

    def fail(_self: Mapping, part: int, start: int, stop: int) -> None:
        if not next(left, 0):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Mapping, "populate", Mapping._read)
        patch.setattr(os, "pread", _reading(fail))
        with pytest.raises(ModelError, match=r"cannot read .*Input/output error; check its disk"):
            for _ in range(20):
                assert write(session) == text
        with pytest.raises(ModelError, match="cannot read"):  # as long as it lasts
            write(session)
    assert write(session) == text


def _reading(before: Callable[..., None]) -> Callable[[int, int, int], bytes]:
    pread = os.pread

    def read(fd: int, n: int, start: int) -> bytes:
        before(None, fd, start, start + n)
        return pread(fd, n, start)

    return read


def test_a_stalling_disk_is_waited_for_and_told(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, populate, reads = write(session), Mapping.populate, []

    def slow(mapping: Mapping, part: int, start: int, stop: int) -> None:
        reads.append(start)
        time.sleep(0.5 if len(reads) == 5 else 0)
        populate(mapping, part, start, stop)

    monkeypatch.setattr(Mapping, "populate", slow)
    monkeypatch.setattr(progress, "is_terminal", lambda _: True)
    monkeypatch.setattr(progress, "_LONG_S", 0.01)
    monkeypatch.setattr(progress, "_TICK_S", 0.01)
    with progress.stall_note(lambda: session.pager.state().waiting_seconds):
        assert write(session) == text
    assert "[waiting for the disk; Ctrl-C ends the reply]" in capsys.readouterr().err
