"""A command that runs and has begun to write."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tests.support.command import COMMAND, ROOT


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended."""

    code: int
    out: bytes
    err: str


def disturb(
    arguments: Sequence[object],
    fault: Callable[["subprocess.Popen[bytes]"], None],
    *,
    seed: int,
    within_s: float = 0.3,
    stdin: str = "",
    enter: Callable[[], None] | None = None,
) -> Ended:
    """Start `cadcpp`, wait for the first byte of an answer and a random moment more, then let ``fault`` happen."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        preexec_fn=enter,
    )
    assert process.stdin is not None and process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.write(stdin.encode())
        process.stdin.flush()
    first = os.read(process.stdout.fileno(), 1)
    time.sleep(random.Random(seed).uniform(0, within_s))
    fault(process)
    out, err = process.communicate(timeout=100)
    return Ended(process.returncode, first + out, err.decode("utf-8", "replace"))


def sends(number: signal.Signals) -> Callable[["subprocess.Popen[bytes]"], None]:
    """The fault that is a signal."""
    return lambda process: process.send_signal(number)
