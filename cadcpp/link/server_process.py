"""llama.cpp's server in a process of its own, which a bad request may end without ending anything else."""

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

_RETRY_S = 0.02


class ServerProcess:
    """Listens at a port of this machine that nobody else is told, for one client."""

    def __init__(self, cache: Path | None, n_threads: int) -> None:
        """``cache``: a folder for weights that were sent once."""
        self._port = _free_port()
        command = [sys.executable, "-m", "cadcpp.native.rpc_server", str(self._port), str(n_threads)]
        # It ends when its input does, so that it never outlives whoever started it.
        self._process = subprocess.Popen(
            [*command, *([str(cache)] if cache else [])], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )

    def connect(self, seconds: float) -> socket.socket:
        """Raises OSError if it has not started by then; while this process was stopped, no time has passed."""
        n_left = int(seconds / _RETRY_S)
        while True:
            try:
                sock = socket.create_connection(("127.0.0.1", self._port))
                if sock.getsockname() != sock.getpeername():  # else it was given the very port that it looks for
                    return sock
                sock.close()
            except ConnectionRefusedError:
                n_left -= 1
                if n_left < 0 or self._process.poll() is not None:
                    raise
            time.sleep(_RETRY_S)

    def resident_bytes(self) -> int:
        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(self._process.pid).memory_info().rss)
        return 0

    def cpu_seconds(self) -> float:
        """How long it has computed; 0 if it is gone."""
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(self._process.pid).cpu_times()
            return float(times.user + times.system)
        return 0.0

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])
