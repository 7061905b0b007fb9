"""A connection to a worker: made with limits on how long that may take, and greeted."""

import contextlib
import socket
from collections.abc import Iterable

from cadcpp.errors import WorkerError
from cadcpp.link.address import Address
from cadcpp.link.protocol import CAPS_BYTES, MARK, VERSION, Broken, Command, ask

CONNECT_S = 10.0  # how long a worker may take to be there
START_S = 90.0  # ... to start a server, from a slow card
SILENCE_S = 300.0  # ... to reply, where it is not one that says meanwhile that it works
BEAT_S = 2.0  # how often such a one says so
BEATS = 10  # of which so many may be missing
LEAVE_S = 5.0  # how long it may take to give back what it held
_ONCE_MORE_S, _PIECE = 1.0, 4096
# After 10 s without a word the kernel asks every 5 s whether the other machine is there; after 6 times it is not.
_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 6), ("TCP_USER_TIMEOUT", 40_000))


def connect(address: Address) -> socket.socket:
    """A connection, not greeted yet. Raises WorkerError."""
    try:
        sock = socket.create_connection((address.host, address.port), timeout=CONNECT_S)
    except OSError as error:
        raise unreachable(address, error) from None
    prepare(sock)
    return sock


def prepare(sock: socket.socket) -> None:
    """Send at once, and notice when the other machine has gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def greet(sock: socket.socket, address: Address) -> bool:
    """Check that it speaks the same protocol; whether it is a `cadcpp worker`. Raises WorkerError."""
    sock.settimeout(START_S)
    try:
        reply = ask(sock, Command.HELLO, MARK)
    except (Broken, OSError) as error:
        raise WorkerError(
            f"{address} does not answer as a worker does ({reason(error)}): start `cadcpp worker` there, "
            "with the same version of cadcpp"
        ) from None
    version = reply[0], reply[1]
    if version[0] != VERSION[0] or version[1] > VERSION[1]:
        raise WorkerError(
            f"worker {address} speaks version {version[0]}.{version[1]} of llama.cpp's RPC protocol, this machine "
            f"{VERSION[0]}.{VERSION[1]}: install the same version of llama-cpp-python on both"
        )
    return reply[4:] == MARK[:CAPS_BYTES]


def look_for(addresses: Iterable[Address]) -> tuple[tuple[Address, ...], tuple[str, ...]]:
    """The workers that can be used at the moment, and why the others cannot, a line each."""
    absences = {address: _absence(address) for address in addresses}
    return tuple(a for a, why in absences.items() if not why), tuple(filter(None, absences.values()))


def _absence(address: Address) -> str:
    try:
        with connect(address) as sock:
            greet(sock, address)
            leave(sock)
    except WorkerError as error:
        return str(error)
    return ""


def lent_bytes(sock: socket.socket, address: Address) -> int:
    """Memory that a worker has left. Raises WorkerError."""
    try:
        return int.from_bytes(ask(sock, Command.GET_DEVICE_MEMORY, bytes(4))[:8], "little")
    except (Broken, OSError) as error:
        raise WorkerError(f"worker {address} is lost: {reason(error)}") from None


def leave(sock: socket.socket) -> None:
    """End a connection, and wait until the worker has: then what it held is free for the next one."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(LEAVE_S)
        while sock.recv(_PIECE):
            pass


def unreachable(address: Address, error: OSError) -> WorkerError:
    """What an error of connecting means."""
    return WorkerError(f"no worker at {address} ({reason(error)}): start `cadcpp worker` there, and check the address")


def wait_for_data(sock: socket.socket, seconds: float) -> None:
    """Raises TimeoutError if nothing comes; not if it came while this machine slept, or this process was stopped."""
    sock.settimeout(seconds)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        sock.settimeout(_ONCE_MORE_S)
        sock.recv(1, socket.MSG_PEEK)


def reason(error: Exception) -> str:
    """In a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
