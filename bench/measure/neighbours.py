"""Other work on the same machine while a cell is measured."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

BUSY, TWIN = "busy", "twin"
NAMES = {BUSY: "beside a busy process", TWIN: "beside another one of it"}
_LOOP = "while True: pass"
_AGAIN = 'while :; do "$@"; done'


@contextlib.contextmanager
def beside(kind: str, command: list[str]) -> Iterator[None]:
    """Inside, a process keeps one core busy, or the same command runs again and again, in memory; "": neither."""
    if not kind:
        yield
        return
    argv = [sys.executable, "-c", _LOOP] if kind == BUSY else ["sh", "-c", _AGAIN, "sh", *command]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(argv, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
