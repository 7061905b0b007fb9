"""What listens for clients on a worker: in front of llama.cpp's server, which knows no limits."""

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from cadcpp.link.address import Address
from cadcpp.link.connection import BEAT_S, LEAVE_S, START_S, prepare
from cadcpp.link.protocol import (
    ALIVE,
    CAPS_BYTES,
    MARK,
    Broken,
    Command,
    head,
    length,
    move,
    read_exactly,
    read_head,
    read_length,
    reply_bytes,
    send_reply,
)
from cadcpp.link.weight_cache import HASH_BYTES, Checksum, WeightCache

_PAYLOADS = {  # of requests that are read as a whole, bytes
    Command.GET_DEVICE_MEMORY: 4,
    Command.ALLOC_BUFFER: 12,
    Command.FREE_BUFFER: 8,
    Command.HELLO: CAPS_BYTES,
    Command.SET_TENSOR_HASH: HASH_BYTES,
}
GUEST = "guest"  # what threads that serve a client are called
_SIZE, _POINTER, _TWO = struct.Struct("<4xQ"), struct.Struct("<Q"), struct.Struct("<QQ")


class Server(Protocol):
    """llama.cpp's server, in a process of its own."""

    def connect(self, seconds: float) -> socket.socket:
        """Raises OSError if it has not started by then."""
        ...

    def resident_bytes(self) -> int: ...

    def cpu_seconds(self) -> float:
        """How long it has computed."""
        ...

    def close(self) -> None: ...


class Ledger:
    """The memory that clients may have together."""

    def __init__(self, n_bytes: int) -> None:
        self._free, self._lock = n_bytes, threading.Lock()

    def free(self) -> int:
        return max(self._free, 0)

    def take(self, n_bytes: int) -> bool:
        """Whether there is as much; then it is taken."""
        with self._lock:
            enough = n_bytes <= self._free
            self._free -= n_bytes if enough else 0
            return enough

    def give(self, n_bytes: int) -> None:
        """What was taken is free again, or less than nothing: what a process takes that is there all the same."""
        with self._lock:
            self._free += n_bytes


class Front:
    """Accepts clients, each with a server of its own: what one has is gone when it goes, even if the server died."""

    def __init__(
        self,
        address: Address,
        ledger: Ledger,
        start: Callable[[], Server],
        told: Callable[[str], None],
        cache: WeightCache | None = None,
    ) -> None:
        """Raises OSError if the address cannot be listened at.

        ``told`` gets lines about clients, ``cache`` is where servers keep weights.
        """
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._listener = socket.create_server((address.host, address.port), family=family)
        self.ledger, self._start, self._told, self._cache = ledger, start, told, cache
        self._guests = set[_Guest]()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def serve(self) -> None:
        """Until it is closed, or an exception comes out of the blue, such as a KeyboardInterrupt."""
        with contextlib.suppress(OSError):
            while True:
                client, where = self._listener.accept()
                threading.Thread(target=self._attend, args=(client, where[0]), name=GUEST, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _attend(self, client: socket.socket, where: str) -> None:
        prepare(client)
        self._guests.add(guest := _Guest(client, self._start(), self.ledger, self._lendable, self._cache))
        try:
            guest.serve()
        except (OSError, Broken) as error:
            self._told(f"client {where} is lost: {error}")
        finally:
            guest.leave()
            self._guests.discard(guest)

    def _lendable(self) -> int:
        """Bytes that a client may ask for: one that comes back must not find what it had before still taken."""
        for guest in [*self._guests]:
            if guest.thread is not threading.current_thread() and has_gone(guest.client):
                guest.end()
        return self.ledger.free()


@dataclass(slots=True, eq=False)
class _Guest:
    """One client and its server."""

    client: socket.socket
    server: Server
    ledger: Ledger
    lendable: Callable[[], int]
    cache: WeightCache | None
    known: bool = False  # it understands ALIVE
    buffers: dict[int, int] = field(default_factory=dict)  # bytes, by what its server calls them
    held: int = 0  # bytes of the ledger: what the server takes itself, its buffers, and one that it was just asked for
    missing: str = ""  # what of the cache was asked for and is not there: it comes next
    beaten: float = 0.0  # when the client was last told that work goes on
    inner: socket.socket = field(init=False)  # to the server
    thread: threading.Thread = field(default_factory=threading.current_thread)  # which serves it

    def serve(self) -> None:
        """All its requests. Raises OSError or Broken where one of the two has gone."""
        with self.server.connect(START_S) as self.inner:
            prepare(self.inner)
            self._give(-self.server.resident_bytes())
            self._serve()

    def leave(self) -> None:
        """End its server, and with that give back what it had; the client may wait for that before it comes again."""
        self.server.close()
        self._give(self.held)
        self.client.close()

    def end(self) -> None:
        """From another thread, of a client that has gone: wherever its own one waits, the server's end ends that."""
        self.server.close()
        self.thread.join(LEAVE_S)

    def _serve(self) -> None:
        while (found := read_head(self.client)) is not None:
            command, n_bytes = found
            if n_bytes != _PAYLOADS.get(command, n_bytes):
                raise Broken(f"its {command.name} has {n_bytes} bytes")
            match command:
                case Command.GET_DEVICE_MEMORY:
                    read_exactly(self.client, n_bytes)
                    send_reply(self.client, _TWO.pack(*2 * [self.lendable()]))
                case Command.ALLOC_BUFFER:
                    self._allocate(read_exactly(self.client, n_bytes))
                case Command.FREE_BUFFER:
                    self._free(read_exactly(self.client, n_bytes))
                case Command.HELLO:
                    self._greet(read_exactly(self.client, n_bytes))
                case Command.SET_TENSOR_HASH if self.cache:
                    self._look_up(self.cache, read_exactly(self.client, n_bytes))
                case Command.SET_TENSOR if self.cache and self.missing:
                    self._keep(self.cache, n_bytes)
                case _:
                    self._hand_on(command, n_bytes)

    def _allocate(self, payload: bytes) -> None:
        (n_bytes,) = _SIZE.unpack(payload)
        if not self.ledger.take(n_bytes):
            send_reply(self.client, _TWO.pack(0, 0))
            return
        self.held += n_bytes
        reply = self._ask(Command.ALLOC_BUFFER, payload)
        buffer, _ = _TWO.unpack(reply)
        if buffer:
            self.buffers[buffer] = n_bytes
        else:
            self._give(n_bytes)
        send_reply(self.client, reply)

    def _free(self, payload: bytes) -> None:
        self.inner.sendall(head(Command.FREE_BUFFER, len(payload)) + payload)
        self._give(self.buffers.pop(_POINTER.unpack(payload)[0], 0))

    def _give(self, n_bytes: int) -> None:
        self.held -= n_bytes
        self.ledger.give(n_bytes)

    def _greet(self, payload: bytes) -> None:
        self.known = payload == MARK
        reply = self._ask(Command.HELLO, bytes(CAPS_BYTES))
        send_reply(self.client, reply[:-CAPS_BYTES] + MARK if self.known else reply)

    def _look_up(self, cache: WeightCache, payload: bytes) -> None:
        name = cache.name(payload)
        there = cache.has(name, self._beat) and any(self._ask(Command.SET_TENSOR_HASH, payload))
        self.missing = "" if there else name
        send_reply(self.client, bytes([there]))

    def _keep(self, cache: WeightCache, n_bytes: int) -> None:
        checksum = Checksum.of_tensor()

        def send(piece: memoryview) -> None:
            checksum.add(piece)
            self.inner.sendall(piece)

        self.inner.sendall(head(Command.SET_TENSOR, n_bytes))
        move(self.client, n_bytes, send)
        cache.keep(self.missing, checksum)
        self.missing = ""

    def _hand_on(self, command: Command, n_bytes: int) -> None:
        self.inner.sendall(head(command, n_bytes))
        expected = reply_bytes(command, move(self.client, n_bytes, self.inner.sendall))
        if expected is not None:
            self._reply(expected)

    def _reply(self, n_bytes: int) -> None:
        self._wait()
        if (found := read_length(self.inner)) != n_bytes:
            raise Broken(f"llama.cpp's server answered with {found} bytes instead of {n_bytes}")
        self.client.sendall(length(n_bytes))
        move(self.inner, n_bytes, self.client.sendall)

    def _wait(self) -> None:
        """Until the server replies; a client that understands it is told that it computes, as long as it does."""
        self.inner.settimeout(BEAT_S)
        before = self.server.cpu_seconds()
        while not self._has_replied():
            self._check_client()
            now = self.server.cpu_seconds()
            if now > before:
                self._tell_alive()
            before = now
        self.inner.settimeout(None)

    def _beat(self) -> None:
        """To be called while it is this process that works."""
        if time.monotonic() - self.beaten > BEAT_S:
            self.beaten = time.monotonic()
            self._tell_alive()

    def _tell_alive(self) -> None:
        if self.known:
            self.client.sendall(length(ALIVE))

    def _check_client(self) -> None:
        """Raises Broken if the client has gone: a server that hangs would keep its memory for ever."""
        if has_gone(self.client):
            raise Broken("it has gone in the middle of a request")

    def _has_replied(self) -> bool:
        with contextlib.suppress(TimeoutError):
            self.inner.recv(1, socket.MSG_PEEK)
            return True
        return False

    def _ask(self, command: Command, payload: bytes) -> bytes:
        self.inner.sendall(head(command, len(payload)) + payload)
        return read_exactly(self.inner, read_length(self.inner))


def has_gone(sock: socket.socket) -> bool:
    """Whether nothing will come from the other end any more; where the system does not tell, once all was read."""
    hang_up = getattr(select, "POLLRDHUP", 0)
    if hang_up and sock.fileno() >= 0:
        poll = select.poll()
        poll.register(sock, hang_up)
        return bool(poll.poll(0))
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
