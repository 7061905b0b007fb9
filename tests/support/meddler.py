"""What stands in front of a worker, always at the same address, and meddles with what passes."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from cadcpp.link.address import Address
from cadcpp.link.connection import prepare
from cadcpp.link.protocol import ALIVE, Broken, head, length, move, read_head, read_length


class Meddler:
    """Hands on requests and replies. Whatever is set of the attributes holds from the next of them on."""

    def __init__(self, target: Address, seed: int = 0) -> None:
        self._target, self._rng = target, np.random.default_rng(seed)
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(*self._listener.getsockname())
        self.heal()
        self._listen()

    def heal(self) -> None:
        """Meddle with nothing any more."""
        self.delay_s = 0.0  # of every piece
        self.swallows = False  # nothing comes through, and nothing breaks
        self.babbles_here = self.babbles_there = False  # noise in the place of replies, of requests
        self.greeting = b""  # what whoever connects is told, in the place of everything
        self.after(0, _nothing)

    def after(self, n_bytes: int, act: Callable[[], object]) -> None:
        """Do something once, when so many more bytes have passed."""
        self.passed, self._after, self._act = 0, n_bytes, act  # bytes both ways

    def cut(self) -> None:
        """Break what is connected; whoever connects again is let through."""
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def shut(self) -> None:
        """Nobody listens any more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def listen_again(self) -> None:
        self._listener = socket.create_server((self.address.host, self.address.port))
        self._listen()

    def close(self) -> None:
        self.shut()
        self.cut()
        for sock in self._open:
            sock.close()

    def _listen(self) -> None:
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._open.append(client)
                if self.greeting:
                    client.sendall(self.greeting)
                    continue
                server = socket.create_connection((self._target.host, self._target.port))
                self._open.append(server)
                for sock in (client, server):
                    prepare(sock)  # else a small piece would wait for the receipt of the last one
                for hand_on in (self._requests, self._replies):
                    threading.Thread(target=self._run, args=(hand_on, client, server), daemon=True).start()

    @staticmethod
    def _run(
        hand_on: Callable[[socket.socket, socket.socket], None], client: socket.socket, server: socket.socket
    ) -> None:
        with suppress(OSError, Broken):
            hand_on(client, server)
        for sock in (client, server):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        while (found := read_head(client)) is not None:
            self._send(server, self._noise() if self.babbles_there else head(*found))
            move(client, found[1], lambda piece: self._send(server, piece))

    def _replies(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            n_bytes = read_length(server)
            self._send(client, self._noise() if self.babbles_here else length(n_bytes))
            if n_bytes != ALIVE:
                move(server, n_bytes, lambda piece: self._send(client, piece))

    def _send(self, sink: socket.socket, piece: bytes | memoryview) -> None:
        self.passed += len(piece)
        if self.passed >= self._after:
            act, self._act = self._act, _nothing
            act()
        time.sleep(self.delay_s)
        if not self.swallows:
            sink.sendall(piece)

    def _noise(self) -> bytes:
        return self._rng.bytes(64)


def _nothing() -> None:
    """In the place of an act."""
