"""How fast the way to a worker is."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from cadcpp.errors import WorkerError
from cadcpp.link.address import Address
from cadcpp.link.connection import connect, greet, reason
from cadcpp.link.protocol import Broken, Command, ask, send

_TENSOR = struct.Struct("<QIQ4I4II16ii10QQQQ64si")  # what the protocol says of a tensor
_I8 = 24  # ggml's type of plain bytes
_NUMBER, _DEVICE = struct.Struct("<Q"), struct.pack("<I", 0)
_N_PINGS, _N_BYTES = 15, 4 << 20


@dataclass(frozen=True, slots=True)
class LinkSpeed:
    """What the way to a worker takes."""

    round_trip_s: float
    byte_s: float  # of sending one; receiving one is taken to be the same


def measure_speed(address: Address) -> LinkSpeed:
    """Time small requests and one large one. Raises WorkerError."""
    with _client(address) as sock:
        round_trip_s = median(_seconds(sock, Command.GET_ALIGNMENT, _DEVICE) for _ in range(_N_PINGS))
        tensor, buffer = _tensor(sock, address)
        start = time.perf_counter()
        send(sock, Command.SET_TENSOR, tensor + bytes(1 + 8 + _N_BYTES))  # a flag, an offset, the data
        ask(sock, Command.GET_TENSOR, tensor + struct.pack("<QQ", 0, 1))  # which waits for what was sent before
        seconds = time.perf_counter() - start
        send(sock, Command.FREE_BUFFER, buffer)
    return LinkSpeed(round_trip_s, max(seconds - round_trip_s, 1e-6) / _N_BYTES)


@contextmanager
def _client(address: Address) -> Iterator[socket.socket]:
    with connect(address) as sock:
        greet(sock, address)
        try:
            yield sock
        except (OSError, Broken) as error:
            raise WorkerError(f"worker {address} is lost: {reason(error)}") from None


def _seconds(sock: socket.socket, command: Command, payload: bytes) -> float:
    start = time.perf_counter()
    ask(sock, command, payload)
    return time.perf_counter() - start


def _tensor(sock: socket.socket, address: Address) -> tuple[bytes, bytes]:
    """A tensor of plain bytes in a buffer of the worker's, and the buffer."""
    buffer = ask(sock, Command.ALLOC_BUFFER, struct.pack("<IQ", 0, _N_BYTES))[:8]
    if not any(buffer):
        raise WorkerError(f"worker {address} has not even {_N_BYTES >> 20} MiB left: start it with a larger --ram")
    base = _NUMBER.unpack(ask(sock, Command.BUFFER_GET_BASE, buffer))[0]
    sizes, strides = (_N_BYTES, 1, 1, 1), (1, _N_BYTES, _N_BYTES, _N_BYTES)
    nothing = [0] * (1 + 16 + 1 + 10 + 1 + 1)  # operation, its parameters, flags, sources, view
    handle = _NUMBER.unpack(buffer)[0]
    return _TENSOR.pack(1, _I8, handle, *sizes, *strides, *nothing, base, b"speed", 0), buffer
