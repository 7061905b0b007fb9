"""A link to a worker, which llama.cpp talks through: where it breaks, llama.cpp does not notice."""

import contextlib
import socket
import threading
import time

from cadcpp.errors import WorkerError
from cadcpp.link.address import Address
from cadcpp.link.connection import (
    BEAT_S,
    BEATS,
    LEAVE_S,
    SILENCE_S,
    START_S,
    connect,
    greet,
    leave,
    lent_bytes,
    prepare,
    reason,
    wait_for_data,
)
from cadcpp.link.protocol import (
    ALIVE,
    MARK,
    Broken,
    Command,
    empty_reply,
    head,
    length,
    move,
    read_exactly,
    read_head,
    read_length,
    reply_bytes,
)
from cadcpp.link.traffic import Traffic

_PACKET = 64 << 10


class Link:
    """A listener on this machine which hands on what llama.cpp sends to one worker, and the replies.

    llama.cpp ends the process where a connection to a worker breaks. Here it breaks behind the listener: from then on
    requests are answered with nothing, `check` raises, and whoever asked for a pass throws its results away.
    """

    def __init__(self, address: Address) -> None:
        """Raises WorkerError if nothing that can be used listens there."""
        self.address, self.traffic, self.lost = address, Traffic(), ""
        self.waits = False  # for a reply
        with connect(address) as sock:
            tells = greet(sock, address)
            self.lent_bytes = lent_bytes(sock, address)
            leave(sock)
        self._patience_s = BEAT_S * BEATS if tells else SILENCE_S
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open, self._relays = {self._listener}, list[threading.Thread]()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """Where llama.cpp finds the worker."""
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    def check(self) -> None:
        """Raises WorkerError once the link is broken."""
        if self.lost:
            raise WorkerError(f"worker {self.address} is lost: {self.lost}")

    def close(self) -> None:
        """Let go of the worker, and of what it holds for this link. May be called twice.

        llama.cpp has ended its connections before: the worker's memory is free again, unless it is slow to say so.
        """
        for relay in self._relays:
            relay.join(LEAVE_S)
        self._relays.clear()
        self._lose("the link is closed")
        self._shut(self._listener)

    def _lose(self, why: str) -> None:
        self.lost = self.lost or why
        for sock in [*self._open]:
            if sock is not self._listener:
                self._shut(sock)

    def _shut(self, sock: socket.socket) -> None:
        self._open.discard(sock)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                relay = threading.Thread(target=self._relay, args=(client,), daemon=True)
                self._relays.append(relay)
                relay.start()

    def _relay(self, client: socket.socket) -> None:
        """All requests of one connection of llama.cpp's, of which it has one at a time."""
        prepare(client)
        with contextlib.suppress(OSError, Broken), client:
            worker = self._worker()
            while (found := read_head(client)) is not None:
                self._hand_on(client, worker, *found)
            if worker is not None:
                leave(worker)
                self._shut(worker)

    def _worker(self) -> socket.socket | None:
        """A connection to the worker, None if it is lost."""
        if self.lost:
            return None
        try:
            sock = connect(self.address)
        except WorkerError as error:
            self._lose(str(error))
            return None
        self._open.add(sock)
        return sock

    def _hand_on(self, client: socket.socket, worker: socket.socket | None, command: Command, n_bytes: int) -> None:
        """One request and its reply."""
        outgoing = _Outgoing(self, worker)
        outgoing.send(head(command, n_bytes))
        if command == Command.HELLO:
            move(client, n_bytes, lambda _: None)
            outgoing.send(MARK)
            end = MARK
        else:
            end = move(client, n_bytes, outgoing.send)
        outgoing.flush()
        expected = reply_bytes(command, end)
        if expected is not None:
            self._reply(client, worker, command, expected)

    def _reply(self, client: socket.socket, worker: socket.socket | None, command: Command, n_bytes: int) -> None:
        data = self._receive(worker, n_bytes, START_S if command == Command.HELLO else self._patience_s)
        if command == Command.HELLO or data is None:  # whose marks are none of llama.cpp's business
            data = empty_reply(command, n_bytes)
        client.sendall(length(n_bytes) + data)

    def _receive(self, worker: socket.socket | None, n_bytes: int, patience_s: float) -> bytes | None:
        """A reply, None if there is none."""
        if self.lost or worker is None:
            return None
        start, self.waits = time.perf_counter(), True
        try:
            data = self._wait(worker, n_bytes, patience_s)
        except (OSError, Broken) as error:
            self._lose(reason(error))
            return None
        finally:
            self.waits = False
        self.traffic.received_bytes += n_bytes
        self.traffic.round_trips += 1
        self.traffic.waiting_seconds += time.perf_counter() - start
        return data

    @staticmethod
    def _wait(worker: socket.socket, n_bytes: int, patience_s: float) -> bytes:
        wait_for_data(worker, patience_s)
        while (found := read_length(worker)) == ALIVE:
            wait_for_data(worker, patience_s)
        worker.settimeout(SILENCE_S)
        if found != n_bytes:
            raise Broken(f"it answered with {found} bytes instead of {n_bytes}")
        return read_exactly(worker, n_bytes)


class _Outgoing:
    """Sends as long as somebody is there; what is small goes together, since every packet costs."""

    def __init__(self, link: Link, worker: socket.socket | None) -> None:
        self._link, self._worker, self._held = link, worker, bytearray()

    def send(self, piece: bytes | memoryview) -> None:
        self._held += piece
        if len(self._held) >= _PACKET:
            self.flush()

    def flush(self) -> None:
        data, self._held = self._held, bytearray()
        if self._link.lost or self._worker is None:
            return
        self._worker.settimeout(SILENCE_S)  # it may compute and not read
        try:
            self._worker.sendall(data)
        except OSError as error:
            self._link._lose(reason(error))
            return
        self._link.traffic.sent_bytes += len(data)
