"""The command line in a process of its own, so that a crash of native code is seen as one."""

import os
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-m", "cadcpp"]
ROOT = Path(__file__).parents[2]


def run(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    """`cadcpp <arguments>`, its output as text."""
    environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}  # an abort would start a debugger
    command = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, cwd=ROOT, env=environment, timeout=300)
    out, err = done.stdout.decode(), done.stderr.decode("utf-8", "replace")
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)
