"""A link between two machines on one: a relay that delays what passes, and lets so much pass in a second.

Kernels without netem have no other way. It counts what passes.
"""

import contextlib
import socket
import threading
import time
from queue import SimpleQueue

from cadcpp.link.address import Address

_PIECE = 64 << 10


class SlowLink:
    """Listens at a free port of this machine, and hands on to ``target`` in both directions."""

    def __init__(self, target: Address, delay_s: float, bytes_per_s: float) -> None:
        """``delay_s`` is that of one direction: half a round trip."""
        self._target, self._delay_s, self._bytes_per_s = target, delay_s, bytes_per_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(*self._listener.getsockname())
        self.n_bytes = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((self._target.host, self._target.port))
                for pair in ((client, server), (server, client)):
                    self._start(*pair)

    def _start(self, source: socket.socket, sink: socket.socket) -> None:
        sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pieces = SimpleQueue[tuple[float, bytes]]()
        threading.Thread(target=self._read, args=(source, pieces), daemon=True).start()
        threading.Thread(target=self._write, args=(pieces, sink), daemon=True).start()

    def _read(self, source: socket.socket, pieces: "SimpleQueue[tuple[float, bytes]]") -> None:
        """Each piece leaves when the one before has left, and is there a delay later."""
        free = 0.0
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE):
                free = max(free, time.monotonic()) + len(piece) / self._bytes_per_s
                pieces.put((free + self._delay_s, piece))
                self.n_bytes += len(piece)
                time.sleep(max(free - time.monotonic(), 0))  # or the sender would not notice
        pieces.put((0.0, b""))

    @staticmethod
    def _write(pieces: "SimpleQueue[tuple[float, bytes]]", sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (found := pieces.get())[1]:
                time.sleep(max(found[0] - time.monotonic(), 0))
                sink.sendall(found[1])
            sink.shutdown(socket.SHUT_RDWR)
