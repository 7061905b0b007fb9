"""`python -m bench.measure.run_limited SIZE COMMAND...`: a command in so much memory (cgroup), page cache included.

The limit needs root.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from bench.measure.memory_wall import Limits, why_not
from bench.program import run_program
from cadcpp.util.byte_size import parse_size


def main() -> None:
    """Run the command and end as it does."""
    size, *command = sys.argv[1:]
    sys.exit(run(size, command))


def run(size: str, command: list[str]) -> int:
    """The command's exit code. Without the rights to set a limit it takes this process's place."""
    if (reason := why_not()) is not None:
        print(f"no memory limit ({reason})", file=sys.stderr)
        os.execvp(command[0], command)
    with Limits(ram_bytes=parse_size(size), name=f"cadcpp-room-{os.getpid()}").groups(_program(command[0])) as enter:
        process = subprocess.Popen(command, preexec_fn=enter)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())  # or the control group would stay
        return process.wait()


def _program(name: str) -> Path:
    """Where a command lies, whose disk is the one that counts."""
    found = shutil.which(name)
    if found is None:
        sys.exit(f"no command {name}: give its path")
    return Path(found)


if __name__ == "__main__":
    run_program(main)
