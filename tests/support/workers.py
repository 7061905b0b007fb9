"""Workers in threads of the test's process, with exactly as much memory as a test wants them to lend."""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cadcpp.errors import ConfigError
from cadcpp.gguf.header import Header, read_header
from cadcpp.link.address import Address
from cadcpp.link.front import GUEST, Front, Ledger
from cadcpp.link.server_process import ServerProcess
from cadcpp.link.weight_cache import WeightCache
from cadcpp.native.rpc import check_rpc
from cadcpp.residency.placement import Offer, place_layers
from cadcpp.residency.states import States, verifier_states
from cadcpp.runtime.kernel_choice import has_snapshots
from cadcpp.tree.limits import TreeLimits


def _built_without() -> bool:
    try:
        check_rpc()
    except ConfigError:
        return True
    return False


needs_rpc = pytest.mark.skipif(_built_without(), reason="this llama.cpp was built without RPC")
LIMITS = TreeLimits(max_size=8)


class Weightless(ServerProcess):
    """A server that takes no memory of its own, so that a test can count what is left."""

    def resident_bytes(self) -> int:
        return 0

    def stop(self) -> None:
        """Let it hang."""
        self._process.send_signal(signal.SIGSTOP)


class Worker:
    """A running worker, and the servers that it started."""

    def __init__(self, n_bytes: int, cache: Path | None = None) -> None:
        self.ledger, self.told = Ledger(n_bytes), list[str]()
        self.servers: list[Weightless] = []
        self._cache = cache
        kept = WeightCache(cache) if cache else None
        self.front = Front(Address("127.0.0.1", 0), self.ledger, self._start, self.told.append, kept)
        self.address = Address("127.0.0.1", self.front.port)
        threading.Thread(target=self.front.serve, daemon=True).start()

    def _start(self) -> Weightless:
        self.servers.append(Weightless(self._cache, 1))
        return self.servers[-1]

    def settle(self) -> None:
        """Wait until every server has ended."""
        for thread in threading.enumerate():
            if thread.name == GUEST:
                thread.join()

    def kill(self) -> None:
        """End every server, in the middle of whatever it does."""
        for server in self.servers:
            server.close()


class Wire:
    """Hands on to a worker in both directions, until so many bytes have passed; then it breaks for good."""

    def __init__(self, target: Address, n_bytes: float) -> None:
        self._target, self._n_bytes, self.passed = target, n_bytes, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(*self._listener.getsockname())
        self._open = [self._listener]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((self._target.host, self._target.port))
                self._open += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(4096):
                self.passed += len(piece)
                if self.passed >= self._n_bytes:
                    self.close()
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_RDWR)


@contextmanager
def worker(n_bytes: int, cache: Path | None = None) -> Iterator[Worker]:
    """A worker that lends ``n_bytes``."""
    running = Worker(n_bytes, cache)
    with closing(running.front):
        yield running
        running.kill()


def enough_for(path: Path, n_blocks: int, n_ctx: int) -> int:
    """The least number of bytes for which a worker gets so many blocks of a model."""
    header = read_header(path)
    states = next(verifier_states(header, 1 << 40, snapshots=has_snapshots(header), streamed=False))
    states = states and replace(states, n_chains=1)
    low, high = 0, 1 << 32
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _n_placed(header, middle, n_ctx, states) >= n_blocks else (middle, high)
    return high


def _n_placed(header: Header, n_bytes: int, n_ctx: int, states: States | None) -> int:
    try:
        shares = place_layers(header, [Offer("w", n_bytes)], n_ctx, LIMITS.max_size, states)
        return sum(share.n_blocks for share in shares)
    except ConfigError:
        return 0
