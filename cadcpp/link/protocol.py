"""llama.cpp's RPC protocol: a command's byte, its length, its payload; for some a reply, its length first."""

import socket
import struct
from collections.abc import Callable
from enum import IntEnum

VERSION = (7, 0)  # major and minor, of the llama.cpp that the dependency pins
CAPS_BYTES = 24  # of a greeting, for transports that are not used here; ours has MARK in them
MARK = b"cadcpp 1".ljust(CAPS_BYTES, b"\0")
ALIVE = 2**64 - 1  # in the place of a reply's length: the worker computes on; only between two that showed MARK
_HEAD, _LENGTH = struct.Struct("<BQ"), struct.Struct("<Q")
_PIECE = 256 << 10


class Command(IntEnum):
    """What a client may ask for."""

    ALLOC_BUFFER = 0
    GET_ALIGNMENT = 1
    GET_MAX_SIZE = 2
    BUFFER_GET_BASE = 3
    FREE_BUFFER = 4
    BUFFER_CLEAR = 5
    SET_TENSOR = 6
    SET_TENSOR_HASH = 7
    GET_TENSOR = 8
    COPY_TENSOR = 9
    GRAPH_COMPUTE = 10
    GET_DEVICE_MEMORY = 11
    INIT_TENSOR = 12
    GET_ALLOC_SIZE = 13
    HELLO = 14
    DEVICE_COUNT = 15
    GRAPH_RECOMPUTE = 16
    MEMSET_TENSOR = 17


_REPLIES = {
    Command.ALLOC_BUFFER: 16,
    Command.GET_ALIGNMENT: 8,
    Command.GET_MAX_SIZE: 8,
    Command.BUFFER_GET_BASE: 8,
    Command.SET_TENSOR_HASH: 1,
    Command.COPY_TENSOR: 1,
    Command.GET_DEVICE_MEMORY: 16,
    Command.GET_ALLOC_SIZE: 8,
    Command.HELLO: 4 + CAPS_BYTES,
    Command.DEVICE_COUNT: 4,
}
# What a server may say that has nothing: its client goes on, and nothing that it computes is used.
_EMPTY = {
    Command.GET_ALIGNMENT: _LENGTH.pack(64),
    Command.GET_MAX_SIZE: _LENGTH.pack(2**62),
    Command.BUFFER_GET_BASE: _LENGTH.pack(1 << 20),
    Command.SET_TENSOR_HASH: b"\1",  # it has that tensor: nothing more is sent
    Command.COPY_TENSOR: b"\1",
    Command.HELLO: bytes([*VERSION, 0, 0]) + bytes(CAPS_BYTES),
    Command.DEVICE_COUNT: struct.pack("<I", 1),
}


class Broken(Exception):
    """The other end has gone, or speaks something else."""


def reply_bytes(command: Command, payload_end: bytes) -> int | None:
    """Length of the reply to a command, of whose payload the last 8 bytes are given; None if there is none."""
    if command == Command.GET_TENSOR:
        return int.from_bytes(payload_end, "little")
    return _REPLIES.get(command)


def empty_reply(command: Command, n_bytes: int) -> bytes:
    """A reply of that length which a client can live with."""
    return _EMPTY.get(command, b"").ljust(n_bytes, b"\0")


def read_head(sock: socket.socket) -> tuple[Command, int] | None:
    """The next command and the length of its payload; None where the client is done. Raises Broken."""
    first = sock.recv(1)
    if not first:
        return None
    number, n_bytes = _HEAD.unpack(first + read_exactly(sock, _HEAD.size - 1))
    try:
        return Command(number), n_bytes
    except ValueError:
        raise Broken(f"it sent command {number}, which there is none of") from None


def head(command: Command, n_bytes: int) -> bytes:
    """What goes in front of a payload."""
    return _HEAD.pack(command, n_bytes)


def send(sock: socket.socket, command: Command, payload: bytes = b"") -> None:
    """A whole command."""
    sock.sendall(head(command, len(payload)) + payload)


def send_reply(sock: socket.socket, data: bytes) -> None:
    sock.sendall(_LENGTH.pack(len(data)) + data)


def read_length(sock: socket.socket) -> int:
    return int(_LENGTH.unpack(read_exactly(sock, _LENGTH.size))[0])


def length(n_bytes: int) -> bytes:
    """What goes in front of a reply."""
    return _LENGTH.pack(n_bytes)


def ask(sock: socket.socket, command: Command, payload: bytes = b"") -> bytes:
    """Send a command and wait for its reply. Raises Broken, or OSError."""
    send(sock, command, payload)
    expected = reply_bytes(command, payload[-8:])
    while (n_bytes := read_length(sock)) == ALIVE:
        pass
    if n_bytes != expected:
        raise Broken(f"it answers {command.name} with {n_bytes} bytes instead of {expected}")
    return read_exactly(sock, n_bytes)


def read_exactly(sock: socket.socket, n_bytes: int) -> bytes:
    """That many bytes. Raises Broken if there are fewer."""
    parts: list[bytes] = []
    move(sock, n_bytes, lambda piece: parts.append(bytes(piece)))
    return b"".join(parts)


def move(source: socket.socket, n_bytes: int, sink: Callable[[memoryview], object]) -> bytes:
    """Hand on that many bytes in pieces as they come; gives the last 8 of them. Raises Broken if there are fewer."""
    piece, end = memoryview(bytearray(min(n_bytes, _PIECE))), b""
    while n_bytes:
        n = source.recv_into(piece[: min(n_bytes, len(piece))])
        if n == 0:
            raise Broken("it closed the connection")
        sink(piece[:n])
        end = (end + bytes(piece[max(n - 8, 0) : n]))[-8:]
        n_bytes -= n
    return end
