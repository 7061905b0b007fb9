"""Memory that becomes short in mid-reply: what was kept is given back; slower, alive, and the same text."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.measure.memory_wall import Limits, why_not
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.gguf.header import read_header
from cadcpp.modes import Pin
from cadcpp.residency.memory_plan import make_plan
from cadcpp.runtime.session import Session
from cadcpp.system.mapping import mappings
from cadcpp.system.memory_limits import give_back
from tests.support.command import COMMAND
from tests.support.running import disturb

MIB = 1 << 20
TAKER = 10 * MIB  # what a Python that does nothing needs


def test_what_is_given_back_is_what_is_missing() -> None:
    assert give_back(spare=100 * MIB, unlocked=50 * MIB, window=20 * MIB, evicted=0) == 0
    assert give_back(spare=80 * MIB, unlocked=50 * MIB, window=20 * MIB, evicted=0) == 6 * MIB
    assert give_back(spare=10 * MIB, unlocked=0, window=20 * MIB, evicted=7 * MIB) == 33 * MIB
    assert give_back(spare=-5 * MIB, unlocked=0, window=0, evicted=0) == 21 * MIB


def test_what_was_given_back_is_taken_again_by_halves() -> None:
    assert give_back(spare=60 * MIB, unlocked=10 * MIB, window=10 * MIB, evicted=30 * MIB) == 30 * MIB
    assert give_back(spare=76 * MIB, unlocked=10 * MIB, window=10 * MIB, evicted=30 * MIB) == 10 * MIB
    assert give_back(spare=500 * MIB, unlocked=10 * MIB, window=10 * MIB, evicted=30 * MIB) == 0


@pytest.mark.parametrize("pin", ["locked", "anonymous", "off"])
def test_pins_come_and_go_with_the_memory(sound: Path, half: int, monkeypatch: pytest.MonkeyPatch, pin: Pin) -> None:
    """In the middle of passes too: the pager looks after every layer here."""
    config = SessionConfig(n_ctx=512, n_threads=1, ram=half, speculative="off", pin=pin)
    with Session(sound, None, config) as session:
        pinned, copied, pager, texts = [], list[int](), session.pager, []
        monkeypatch.setattr("cadcpp.residency.streaming_pager._LOOK_S", 0.0)
        for spare in (1 << 40, 0, 1 << 40):
            monkeypatch.setattr(pager, "_spare", lambda spare=spare: spare)
            chunks = session.stream(list(range(10, 20)), SamplingConfig(temperature=0.0), 6)
            texts.append([t for chunk in chunks for t in chunk.tokens])
            pinned.append(pager.state().pinned_bytes)
            copied.append(sound.stat().st_size - mapped_bytes(sound))
        layout, engine = session.plan.layout, session.engine
        kept = layout.pinned_bytes + layout.streamed_bytes - pager.state().pass_bytes
    assert all(text == texts[0] for text in texts)
    assert pinned == [kept, 0, kept]
    # All, unless the KV cache has its memory from the beginning, since its zeros were not found.
    assert (kept == layout.pinned_bytes) == (engine.cache_fill.taken == 0)
    if pin == "anonymous":
        assert copied[0] == copied[2] > copied[1] + 0.9 * kept
    else:
        assert copied == [copied[0]] * 3


def mapped_bytes(model: Path) -> int:
    return sum(found.stop - found.start for found in mappings() if found.path == str(model))


@pytest.mark.skipif(why_not() is not None, reason=f"no control group: {why_not()}")
@pytest.mark.parametrize("mib", [pytest.param(n, marks=pytest.mark.slow) for n in (75, 65, 55, 48)])
def test_a_limit_lowered_in_mid_reply(model: Path, half: int, mib: int) -> None:
    """The limit can be lowered at once, nobody is killed, and the text is what it is with enough memory."""
    arguments = ["generate", "-m", model, "--temp", 0, "--ctx", 512, "--threads", 1, "--speculative", "off"]
    arguments += ["--ram", f"{half}B", "-p", "hello there", "-n", 200]
    free = disturb(arguments, lambda _: None, seed=0)
    forget(model)
    name = f"cadcpp-faults-{os.getpid()}"
    with Limits(ram_bytes=half, name=name).groups(model) as enter:
        walled = disturb(arguments, lambda _: lower(name, mib * MIB), seed=mib, within_s=1.0, enter=enter)
    assert (walled.code, hashlib.sha256(walled.out).hexdigest()) == (0, hashlib.sha256(free.out).hexdigest())


@pytest.mark.skipif(why_not() is not None, reason=f"no control group: {why_not()}")
@pytest.mark.parametrize("mib", [10, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 20, 30))])
def test_another_process_takes_the_memory_in_mid_reply(model: Path, half: int, mib: int) -> None:
    """Memory that cannot be had back, in the same control group, for a second; neither of the two is killed."""
    arguments = ["generate", "-m", model, "--temp", 0, "--ctx", 512, "--threads", 1, "--speculative", "off"]
    arguments += ["--ram", f"{half}B", "-p", "hello there", "-n", 200]
    free = disturb(arguments, lambda _: None, seed=0)
    forget(model)
    with Limits(ram_bytes=half + TAKER, name=f"cadcpp-faults-{os.getpid()}").groups(model) as enter:
        taken = []
        walled = disturb(arguments, lambda _: taken.append(take(mib * MIB, enter)), seed=mib, enter=enter)
    assert (walled.code, hashlib.sha256(walled.out).hexdigest()) == (0, hashlib.sha256(free.out).hexdigest())
    assert taken == [0]


@pytest.mark.skipif(why_not() is not None, reason=f"no control group: {why_not()}")
@pytest.mark.slow
def test_another_process_takes_the_memory_of_a_mixture(tiny: Callable[..., Path], tmp_path: Path) -> None:
    """For good. Experts go for it; without that the kernel reads the whole model again and again."""
    shape = {"n_layer": 8, "n_embd": 512, "n_ff": 512, "n_experts": 64, "n_used": 2}
    mixture = Path(shutil.copy(tiny("mixture", **shape), tmp_path))
    header = read_header(mixture)
    room = make_plan(header, None, ram=1 << 40, n_ctx=512, rows=64).fixed + header.n_bytes // 2
    arguments = ["generate", "-m", mixture, "--temp", 0, "--ctx", 512, "--threads", 1, "--speculative", "off"]
    arguments += ["--ram", f"{room}B", "-p", "hello there", "-n", 300, "--json"]
    read, texts = [], []
    for taken in (0, header.n_bytes // 6):
        forget(mixture)
        with Limits(ram_bytes=room + TAKER, name=f"cadcpp-faults-{os.getpid()}").groups(mixture) as enter:
            with subprocess.Popen([sys.executable, "-S", "-c", HOG.format(taken)], preexec_fn=enter) as other:
                argv = [*COMMAND, *map(str, arguments)]
                done = subprocess.run(argv, capture_output=True, preexec_fn=enter, check=True)
                other.kill()
        found = json.loads(done.stdout)
        texts.append(found["text"])
        read.append(found["stats"]["read_bytes"])
    assert texts[0] == texts[1] and read[1] < 3 * read[0]


HOG = "import time; time.sleep(2); memory = bytearray(b'x') * {}; time.sleep(600)"


@pytest.mark.skipif(why_not() is not None, reason=f"no control group: {why_not()}")
@pytest.mark.slow
def test_copies_are_not_pushed_out_by_the_files_of_another_process(model: Path, half: int, tmp_path: Path) -> None:
    """Nothing may be locked here, and a process of the same control group reads files all the time."""
    flood = tmp_path / "flood"
    flood.write_bytes(bytes(64 * MIB))
    arguments = ["generate", "-m", model, "--temp", 0, "--ctx", 512, "--threads", 1, "--speculative", "off"]
    arguments += ["--ram", f"{half}B", "-p", "hello there", "-n", 100, "--json", "--pin", "anonymous"]
    forget(model)
    with Limits(ram_bytes=half + 2 * TAKER, name=f"cadcpp-faults-{os.getpid()}").groups(model) as enter:
        with subprocess.Popen([sys.executable, "-S", "-c", FLOOD, str(flood)], preexec_fn=enter) as other:
            done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, preexec_fn=enter, check=True)
            other.kill()
    stats = json.loads(done.stdout)["stats"]
    read = (stats["read_bytes"] - stats["prompt_read_bytes"]) / (stats["passes"] - 1)
    assert read < 1.05 * stats["streamed_bytes_per_pass"]


FLOOD = """
import os, sys

fd = os.open(sys.argv[1], os.O_RDONLY)
while True:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    for start in range(0, os.fstat(fd).st_size, 1 << 20):
        os.pread(fd, 1 << 20, start)
"""


def take(n_bytes: int, enter: Callable[[], None]) -> int:
    """Have so much memory for a second; the exit code."""
    code = f"import time; memory = bytearray(b'x') * {n_bytes}; time.sleep(1)"
    return subprocess.run([sys.executable, "-S", "-c", code], preexec_fn=enter, check=False).returncode


def lower(name: str, limit: int) -> None:
    """A few tries: the kernel may say busy while pages are being read."""
    paths = [
        Path("/sys/fs/cgroup/memory") / name / "memory.limit_in_bytes",
        Path("/sys/fs/cgroup") / name / "memory.max",
    ]
    path = next(path for path in paths if path.exists())
    for _ in range(20):
        try:
            path.write_text(str(limit))
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the limit cannot be lowered to {limit}")


def forget(model: Path) -> None:
    """So that the group pays for its pages."""
    with model.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
