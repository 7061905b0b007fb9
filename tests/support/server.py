"""`cadcpp serve` in a process of its own."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.command import COMMAND, ROOT


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path  # its stderr

    def told(self) -> list[str]:
        """The lines on its stderr so far."""
        return self.log.read_text("utf-8").splitlines()


@contextmanager
def serving(log: Path, *arguments: object, **environment: str) -> Iterator[Server]:
    """`cadcpp serve <arguments>` at a free port, until the end of the block, where it gets a Ctrl-C."""
    command = [*COMMAND, "serve", *map(str, arguments), "--port", "0"]
    settings = {**os.environ, "GGML_NO_BACKTRACE": "1", **environment}
    with log.open("wb") as err, subprocess.Popen(command, cwd=ROOT, env=settings, stderr=err) as process:
        try:
            yield Server(process, _url(process, log), log)
            process.send_signal(signal.SIGINT)
            process.wait(60)
        finally:
            process.kill()


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where it says that it serves."""
    while True:
        told = log.read_text("utf-8")
        assert process.poll() is None, told
        if found := re.search("^serving (.*);", told, re.MULTILINE):
            return found[1]
        time.sleep(0.05)
