"""The workers of one session: their links, what each computes, and whether they compute exactly."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from cadcpp.gguf.blocks import state_bytes
from cadcpp.gguf.header import Header
from cadcpp.gguf.sketch import Sketch, sketch
from cadcpp.gguf.state_sketch import StateSketch, state_sketch
from cadcpp.link.address import Address
from cadcpp.link.link import Link
from cadcpp.link.traffic import Traffic
from cadcpp.native.exactness import CANDIDATES, find_granularity
from cadcpp.native.rpc import Device, Spread, check_rpc
from cadcpp.residency.kernel_mode import KernelMode, KernelModes
from cadcpp.residency.placement import Offer, Share, place_layers
from cadcpp.residency.states import States
from cadcpp.runtime.stages import finish
from cadcpp.tree.granularity import Granularity

_NEITHER = "no number of rows was found with which worker {} rounds every row as this machine does"


class Crew:
    """Workers that are connected; `close` lets go of them."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        """Raises ConfigError where llama.cpp has no RPC, WorkerError for a worker that cannot be used."""
        check_rpc()
        self._stack = ExitStack()
        self._links: dict[str, Link] = {}
        self._devices: dict[str, Device] = {}
        try:
            self._offers = [self._connect(address) for address in addresses]
        except BaseException:
            self.close()
            raise

    def _connect(self, address: Address) -> Offer:
        link = Link(address)
        self._stack.callback(link.close)
        device = Device(link.endpoint)
        self._stack.callback(device.close)
        link.check()
        self._links[str(address)], self._devices[str(address)] = link, device
        return Offer(str(address), link.lent_bytes)

    def close(self) -> None:
        """May be called twice."""
        self._stack.close()

    def check(self) -> None:
        """Raises WorkerError if one is lost."""
        for link in self._links.values():
            link.check()

    def traffic(self) -> Traffic:
        """Of all links."""
        return Traffic.sum(link.traffic for link in self._links.values())

    def compute(self) -> bool:
        """Whether a pass waits for one of them now."""
        return any(link.waits for link in self._links.values())

    def place(self, header: Header, n_ctx: int, rows: int, states: States | None) -> tuple[Share, ...]:
        """What each computes of a verifier. Raises ConfigError."""
        return place_layers(header, self._offers, n_ctx, rows, states)

    def spread(self, shares: Sequence[Share]) -> Spread | None:
        """The same for llama.cpp; None if they compute nothing."""
        if not shares:
            return None
        devices = tuple(self._devices[share.address] for share in shares)
        return Spread(devices, tuple(share.n_blocks for share in shares), shares[0].first, self.check)

    def agree(self, modes: KernelModes, header: Header, shares: Sequence[Share], n_threads: int) -> KernelModes:
        """Modes in which the workers are exact as well, by trying them as this machine was tried.

        That is not remembered: the next time another machine may answer at the same address.
        """
        for share in shares:
            kept = self._agreed(modes.kept, header, share, n_threads)
            streamed = self._agreed(modes.streamed, header, share, n_threads) if modes.kept != modes.streamed else kept
            modes = replace(modes, kept=kept, streamed=streamed)
        return modes

    def _agreed(self, mode: KernelMode, header: Header, share: Share, n_threads: int) -> KernelMode:
        if not (mode.exact and mode.drafts):
            return mode
        for made in _sketches(header, mode):
            found = self._granularity(made, mode, share, n_threads)
            if found is None:
                return replace(mode, exact=False, reason=_NEITHER.format(share.address))
            mode = replace(mode, granularity=found)
        return mode

    def _granularity(
        self, made: Sketch | StateSketch, mode: KernelMode, share: Share, n_threads: int
    ) -> Granularity | None:
        """Rows with which a worker is exact, among those that suit ``mode``; None if there are none."""
        spread = Spread((self._devices[share.address],), (made.n_layer,), 0, self.check)
        candidates = [candidate for candidate in CANDIDATES if candidate.suits(mode.granularity)]
        found = finish(
            lambda: find_granularity(
                made,
                # Of routers it has its own products, which nobody here can change.
                replace(mode, repacked=False, routers_by_row=False),
                n_threads=n_threads,
                spread=spread,
                candidates=candidates,
            )
        )
        self.check()
        return found


def _sketches(header: Header, mode: KernelMode) -> Iterator[Sketch | StateSketch]:
    """Small models that tell whether a worker is exact, as far as there are such."""
    yield sketch(header)
    if state_bytes(header) and not mode.untried:
        yield state_sketch(header)


@contextmanager
def crew_of(addresses: Sequence[Address]) -> Iterator[Crew | None]:
    """The workers at some addresses, for a while; None for none."""
    if not addresses:
        yield None
        return
    crew = finish(lambda: Crew(addresses))
    try:
        yield crew
    finally:
        finish(crew.close)
