"""A real disk that returns errors or stalls, by FUSE: what the kernel then does to reads, faults and mappings."""

import errno
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faultydisk import FaultyDisk, faulty_disk, why_not
from tests.support.running import disturb

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

OPTIONS = ("--temp", 0, "--ctx", 512, "--threads", 1, "--speculative", "off")
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))]


@pytest.fixture
def disk(sound: Path, tmp_path: Path) -> Iterator[FaultyDisk]:
    with faulty_disk(sound, tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def arguments(tmp_path: Path, half: int) -> list[object]:
    return ["-m", tmp_path / "disk" / "model.gguf", *OPTIONS, "--ram", f"{half}B"]


@pytest.fixture(scope="module")
def text(sound: Path) -> bytes:
    return disturb(["generate", "-m", sound, *OPTIONS, "-p", "hello", "-n", 60], lambda _: None, seed=0).out


def forget(path: Path) -> None:
    """Take this one file out of the page cache, which other tests need."""
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def broken(_offset: int) -> None:
    raise OSError(errno.EIO, "broken")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("pager", ["--no-pipeline", "--no-pager"])
def test_a_read_error_ends_the_text_in_one_line(
    disk: FaultyDisk, arguments: list[object], text: bytes, pager: str, seed: int
) -> None:
    def breaks(_process: object) -> None:
        disk.fault = broken
        if pager == "--no-pager":  # all is in memory by then: take it away
            forget(Path(str(arguments[1])))

    command = ["generate", *arguments, pager, "-p", "hello", "-n", 60]
    ended = disturb(command, breaks, seed=seed, within_s=0.1)
    if ended.code == 0:  # what was needed was in memory all along
        assert pager == "--no-pager" and ended.out == text
        return
    assert ended.code == 1 and text.startswith(ended.out)
    assert len(ended.err.splitlines()) == 1 and "check its disk" in ended.err


def test_a_chat_goes_on_when_the_disk_does(disk: FaultyDisk, arguments: list[object]) -> None:
    failed: list[int] = []

    def once(offset: int) -> None:
        if len(failed) < 40:  # longer than the kernel tries by itself
            failed.append(offset)
            broken(offset)

    stdin = "".join(f"question {i}\n" for i in range(30))
    ended = disturb(
        ["chat", *arguments, "-n", 4], lambda _: setattr(disk, "fault", once), seed=0, within_s=0.1, stdin=stdin
    )
    assert ended.code == 0 and 1 <= ended.err.count("check its disk") < 30
    assert ended.err.rstrip().splitlines()[-1].startswith("[cut after 4 tokens") or "tokens," in ended.err


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stall_is_waited_for(disk: FaultyDisk, arguments: list[object], text: bytes, seed: int) -> None:
    left = iter([*[0.0] * random.Random(seed).randrange(40), 2.0])

    def stall(_offset: int) -> None:
        time.sleep(next(left, 0.0))

    command = ["generate", *arguments, "-p", "hello", "-n", 60]
    ended = disturb(command, lambda _: setattr(disk, "fault", stall), seed=seed, within_s=0.1)
    assert (ended.code, ended.out) == (0, text)
