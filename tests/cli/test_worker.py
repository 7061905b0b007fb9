"""`cadcpp worker`: what it refuses, what it says, and that it serves."""

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command import COMMAND, ROOT, run
from tests.support.workers import needs_rpc


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "[::]", "pi.local"])
def test_other_machines_are_let_in_only_on_purpose(host: str) -> None:
    done = run("worker", "--listen", f"{host}:50052")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "no authentication" in done.stderr and "--i-trust-this-network" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--listen", "nowhere"], "write HOST:PORT"),
        (["--ram", "much"], "not a size"),
        (["--threads", "0"], "threads must be between"),
        (["--listen", "203.0.113.1:1", "--i-trust-this-network"], "cannot listen at 203.0.113.1:1"),
    ],
)
@needs_rpc
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], told: str) -> None:
    done = run("worker", *arguments)
    assert done.returncode == 2 and told in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture
def running() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A worker at a free port, and its address."""
    command = [*COMMAND, "worker", "--listen", "127.0.0.1:0", "--ram", "400MiB", "--threads", "1", "--no-cache"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    found = re.search(r"lends 419 MB and 1 threads at (\S+);", process.stderr.readline())
    assert found is not None and "no authentication" in process.stderr.readline()
    try:
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


@needs_rpc
def test_a_command_computes_on_it(running: tuple[subprocess.Popen[str], str], tiny: Callable[..., Path]) -> None:
    model = tiny("llama", n_layer=6, n_embd=128, n_head=4, n_head_kv=2, n_ff=256, type_name="Q8_0", seed=3)
    process, address = running
    shared = ["-m", model, "-p", "abc", "-n", 20, "--ctx", 256, "--threads", 1, "--temp", 0, "--fallback", "none"]
    there, here = run("generate", *shared, "--workers", address), run("generate", *shared)
    assert there.returncode == 0 and there.stdout == here.stdout
    told = run("plan", "-m", model, "--ctx", 256, "--workers", address)
    assert f"Worker {address} computes layers 0 to 5" in told.stdout and "It does not pay" in told.stdout
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
