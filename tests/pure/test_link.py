"""The way to a worker, with a server that speaks the protocol and nothing else."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cadcpp.errors import ConfigError, WorkerError
from cadcpp.link import link as link_module
from cadcpp.link.address import Address, parse_addresses
from cadcpp.link.connection import BEAT_S, BEATS
from cadcpp.link.front import GUEST, Front, Ledger
from cadcpp.link.link import Link
from cadcpp.link.protocol import (
    ALIVE,
    CAPS_BYTES,
    VERSION,
    Broken,
    Command,
    ask,
    head,
    length,
    read_exactly,
    read_head,
    send,
    send_reply,
)
from cadcpp.link.speed import measure_speed
from cadcpp.link.weight_cache import WeightCache

GET = bytes(296) + struct.pack("<QQ", 0, 5)  # a tensor, an offset, a size
ALLOC = struct.Struct("<IQ")


class Fake:
    """Answers like llama.cpp's server; ``during[command]`` is done in the place of an answer."""

    def __init__(self, version: tuple[int, int] = VERSION) -> None:
        self.version, self.during = version, dict[Command, Callable[[socket.socket], None]]()
        self.seen = list[Command]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(*self._listener.getsockname())
        self._clients = list[socket.socket]()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._clients.append(client)
                threading.Thread(target=self._attend, args=(client,), daemon=True).start()

    def _attend(self, client: socket.socket) -> None:
        with suppress(OSError, Broken), client:
            while (found := read_head(client)) is not None:
                command, n_bytes = found
                read_exactly(client, n_bytes)
                self.seen.append(command)
                answer = self.during.get(command, self._answers.get(command))
                if answer is not None:
                    answer(client)

    @property
    def _answers(self) -> dict[Command, Callable[[socket.socket], None]]:
        replies = {
            Command.HELLO: bytes([*self.version, 0, 0]) + bytes(CAPS_BYTES),
            Command.GET_DEVICE_MEMORY: struct.pack("<QQ", 1000, 2000),
            Command.GET_TENSOR: b"12345",
            Command.GET_ALIGNMENT: struct.pack("<Q", 64),
            Command.ALLOC_BUFFER: struct.pack("<QQ", 77, 0),
            Command.BUFFER_GET_BASE: struct.pack("<Q", 4096),
        }
        return {command: partial(send_reply, data=data) for command, data in replies.items()}

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for sock in [self._listener, *self._clients]:
            sock.close()

    def cut(self, sock: socket.socket) -> None:
        """In the place of an answer: the connection breaks."""
        sock.shutdown(socket.SHUT_RDWR)


class Process:
    """What a front takes for a server's process, which always computes."""

    def __init__(self, fake: Fake) -> None:
        self._address, self._computed = fake.address, 0.0
        self._sock: socket.socket | None = None

    def connect(self, seconds: float) -> socket.socket:
        self._sock = socket.create_connection((self._address.host, self._address.port), timeout=seconds)
        return self._sock

    def resident_bytes(self) -> int:
        return 10

    def cpu_seconds(self) -> float:
        self._computed += 1.0
        return self._computed

    def close(self) -> None:
        """The fake server serves others."""
        if self._sock is not None:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def fake() -> Iterator[Fake]:
    with closing(Fake()) as server:
        yield server


@pytest.fixture
def link(fake: Fake) -> Iterator[Link]:
    with closing(Link(fake.address)) as made:
        yield made


def client_of(link: Link) -> socket.socket:
    host, _, port = link.endpoint.rpartition(":")
    return socket.create_connection((host, int(port)))


@pytest.mark.parametrize("text", ["", "host", "host:", ":5", "host:0", "host:65536", "host:-1", "host:5x", "a:1,", ","])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write HOST:PORT"):
        parse_addresses(text)


def test_addresses_are_read_and_written() -> None:
    text = "pi.local:50052,[fe80::1]:7"
    found = parse_addresses(text)
    assert found == (Address("pi.local", 50052), Address("fe80::1", 7))
    assert ",".join(map(str, found)) == text


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("pi", False)],
)
def test_only_loopback_is_this_machine(host: str, loopback: bool) -> None:
    assert Address(host, 1).is_loopback is loopback


def test_requests_and_replies_pass_through(fake: Fake, link: Link) -> None:
    assert link.lent_bytes == 1000
    with client_of(link) as client:
        assert ask(client, Command.HELLO, bytes(CAPS_BYTES))[:2] == bytes(VERSION)
        send(client, Command.GRAPH_COMPUTE, bytes(1 << 20))
        assert ask(client, Command.GET_TENSOR, GET) == b"12345"
    assert fake.seen[-2:] == [Command.GRAPH_COMPUTE, Command.GET_TENSOR]
    assert link.traffic.round_trips == 2 and link.traffic.received_bytes == 28 + 5
    assert 1 << 20 < link.traffic.sent_bytes < (1 << 20) + 1000
    link.check()


@pytest.mark.parametrize("command", [Command.GET_TENSOR, Command.HELLO, Command.GRAPH_COMPUTE])
def test_where_it_breaks_the_client_gets_empty_replies(fake: Fake, link: Link, command: Command) -> None:
    fake.during[command] = fake.cut
    with client_of(link) as client:
        ask(client, Command.HELLO, bytes(CAPS_BYTES))
        send(client, Command.GRAPH_COMPUTE, bytes(5))
        assert ask(client, Command.GET_TENSOR, GET) == bytes(5)
        for other in (Command.ALLOC_BUFFER, Command.GET_DEVICE_MEMORY):
            assert not any(ask(client, other, bytes(12)))
        assert ask(client, Command.SET_TENSOR_HASH, bytes(312)) == b"\1"
        send(client, Command.FREE_BUFFER, bytes(8))
    with pytest.raises(WorkerError, match=f"worker {fake.address} is lost: it closed the connection"):
        link.check()
    with client_of(link) as client:  # and so does every later one
        assert ask(client, Command.DEVICE_COUNT) == struct.pack("<I", 1)


def test_a_reply_of_another_length_breaks_it(fake: Fake, link: Link) -> None:
    fake.during[Command.GET_TENSOR] = lambda sock: send_reply(sock, b"123456")
    with client_of(link) as client:
        assert ask(client, Command.GET_TENSOR, GET) == bytes(5)
    with pytest.raises(WorkerError, match="6 bytes instead of 5"):
        link.check()


def test_silence_breaks_it(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "SILENCE_S", 0.1)
    fake.during[Command.GET_TENSOR] = lambda _: None
    with closing(Link(fake.address)) as link, client_of(link) as client:
        assert ask(client, Command.GET_TENSOR, GET) == bytes(5)
        with pytest.raises(WorkerError, match="no answer in time"):
            link.check()


def test_one_that_says_that_it_works_is_waited_for(fake: Fake, link: Link) -> None:
    def answer(sock: socket.socket) -> None:
        for _ in range(3):
            sock.sendall(length(ALIVE))
        send_reply(sock, b"abcde")

    fake.during[Command.GET_TENSOR] = answer
    with client_of(link) as client:
        assert ask(client, Command.GET_TENSOR, GET) == b"abcde"
    link.check()


def test_a_closed_link_is_lost_for_good(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "LEAVE_S", 0.0)  # llama.cpp's own connections would have ended
    link = Link(fake.address)
    with client_of(link) as client:
        ask(client, Command.HELLO, bytes(CAPS_BYTES))
        link.close()
        link.close()
        assert ask(client, Command.GET_TENSOR, GET) == bytes(5)


def test_another_version_is_refused() -> None:
    with closing(Fake((VERSION[0] - 1, 0))) as old:
        with pytest.raises(WorkerError, match=rf"speaks version {VERSION[0] - 1}\.0 .* install the same version"):
            Link(old.address)


def test_what_is_no_worker_is_refused(fake: Fake) -> None:
    fake.during[Command.HELLO] = lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(WorkerError, match="does not answer as a worker does"):
        Link(fake.address)


def test_speed_is_measured_with_requests_of_the_protocol(fake: Fake) -> None:
    fake.during[Command.GET_TENSOR] = lambda sock: send_reply(sock, b"1")
    speed = measure_speed(fake.address)
    assert speed.round_trip_s > 0 and speed.byte_s > 0
    assert fake.seen.index(Command.SET_TENSOR) < fake.seen.index(Command.GET_TENSOR)


# The worker's own end of it.


@pytest.fixture
def front(fake: Fake) -> Iterator[Front]:
    made = Front(Address("127.0.0.1", 0), Ledger(1000), lambda: Process(fake), lambda _: None)
    with closing(made):
        threading.Thread(target=made.serve, daemon=True).start()
        yield made


def client_of_front(front: Front) -> socket.socket:
    return socket.create_connection(("127.0.0.1", front.port))


def test_memory_is_counted(front: Front) -> None:
    with client_of_front(front) as client:
        ask(client, Command.HELLO, bytes(CAPS_BYTES))
        assert ask(client, Command.GET_DEVICE_MEMORY, bytes(4)) == struct.pack("<QQ", 990, 990)  # without its server
        assert ask(client, Command.ALLOC_BUFFER, ALLOC.pack(0, 900)) == struct.pack("<QQ", 77, 0)
        assert ask(client, Command.ALLOC_BUFFER, ALLOC.pack(0, 91)) == bytes(16)  # as a server that has no more
        send(client, Command.FREE_BUFFER, struct.pack("<Q", 77))
        assert ask(client, Command.GET_DEVICE_MEMORY, bytes(4)) == struct.pack("<QQ", 990, 990)
        ask(client, Command.ALLOC_BUFFER, ALLOC.pack(0, 900))
    for thread in threading.enumerate():
        if thread.name == GUEST:
            thread.join()
    assert front.ledger.free() == 1000


def test_a_client_that_knows_is_told_that_it_works(fake: Fake, front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cadcpp.link.front.BEAT_S", 0.05)
    go_on = threading.Event()

    def answer(sock: socket.socket) -> None:
        go_on.wait()
        send_reply(sock, b"abcde")

    fake.during[Command.GET_TENSOR] = answer
    address = Address("127.0.0.1", front.port)
    with closing(Link(address)) as link, client_of(link) as client:
        assert link._patience_s == BEAT_S * BEATS
        threading.Timer(0.5, go_on.set).start()
        assert ask(client, Command.GET_TENSOR, GET) == b"abcde"
        link.check()


def test_a_client_that_goes_while_its_server_hangs_leaves_nothing(
    fake: Fake, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cadcpp.link.front.BEAT_S", 0.05)
    fake.during[Command.GET_TENSOR] = lambda _: None
    with client_of_front(front) as client:
        ask(client, Command.HELLO, bytes(CAPS_BYTES))
        ask(client, Command.ALLOC_BUFFER, ALLOC.pack(0, 900))
        send(client, Command.GET_TENSOR, GET)
    for thread in threading.enumerate():
        if thread.name == GUEST:
            thread.join()
    assert front.ledger.free() == 1000


@pytest.mark.parametrize("command", [Command.GET_TENSOR, Command.ALLOC_BUFFER])
@pytest.mark.parametrize("pipelined", [False, True])
def test_a_client_that_comes_back_finds_what_it_had(
    fake: Fake, front: Front, monkeypatch: pytest.MonkeyPatch, command: Command, pipelined: bool
) -> None:
    """At once, wherever its server hangs, and though there is a request of it that nobody has read yet."""
    monkeypatch.setattr("cadcpp.link.front.BEAT_S", 1000.0)
    asked = threading.Event()
    fake.during[command] = lambda _: asked.set()
    with client_of_front(front) as client:
        ask(client, Command.HELLO, bytes(CAPS_BYTES))
        send(client, command, ALLOC.pack(0, 900) if command == Command.ALLOC_BUFFER else GET)
        if pipelined:
            send(client, Command.GET_DEVICE_MEMORY, bytes(4))
        asked.wait()
    with client_of_front(front) as client:
        ask(client, Command.HELLO, bytes(CAPS_BYTES))
        assert ask(client, Command.GET_DEVICE_MEMORY, bytes(4)) == struct.pack("<QQ", 990, 990)


def test_what_is_kept_counts_only_as_it_was_sent(fake: Fake, tmp_path: Path) -> None:
    asked, data = bytes(304) + struct.pack("<Q", 0xABC), np.random.default_rng(0).bytes(1 << 20)
    file, checksum = tmp_path / "0000000000000abc", tmp_path / "0000000000000abc.crc32"
    fake.during[Command.SET_TENSOR_HASH] = lambda sock: send_reply(sock, bytes([file.exists()]))
    made = Front(Address("127.0.0.1", 0), Ledger(1000), lambda: Process(fake), lambda _: None, WeightCache(tmp_path))
    with closing(made):
        threading.Thread(target=made.serve, daemon=True).start()
        with client_of_front(made) as client:

            def has() -> bool:
                return ask(client, Command.SET_TENSOR_HASH, asked) == b"\1"

            assert not has()
            send(client, Command.SET_TENSOR, bytes(305) + data)
            assert not has()  # its server has not written it
            file.write_bytes(data)
            assert has()
            for damaged in (data[:-1], data + b"x", b"", data[:99] + bytes([data[99] ^ 1]) + data[100:]):
                file.write_bytes(damaged)
                assert not has()
            file.write_bytes(data)
            assert has()
            checksum.unlink()
            assert not has()


@pytest.mark.parametrize(
    "request_head",
    [b"\xfe" + bytes(8), head(Command.ALLOC_BUFFER, 2**64 - 1), head(Command.HELLO, 0), head(Command.FREE_BUFFER, 9)],
)
def test_what_is_no_request_ends_the_client(front: Front, request_head: bytes) -> None:
    with client_of_front(front) as client:
        client.sendall(request_head)
        assert client.recv(1) == b""
