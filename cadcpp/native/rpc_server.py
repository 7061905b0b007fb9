"""llama.cpp's RPC server as a program: `python -m cadcpp.native.rpc_server PORT THREADS [CACHE]`."""

import os
import sys
import threading

from cadcpp.native.rpc import start_server


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main(port: str, n_threads: str, cache: str | None = None) -> None:
    """Serve at a port of this machine until standard input ends."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    start_server(f"127.0.0.1:{port}", cache, int(n_threads))


if __name__ == "__main__":
    main(*sys.argv[1:])
