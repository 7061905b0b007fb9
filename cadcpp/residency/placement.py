"""Which layers of a verifier other machines compute: numbers in, blocks out."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cadcpp.errors import ConfigError
from cadcpp.gguf.blocks import ahead_blocks, block_of, block_state_bytes, state_blocks
from cadcpp.gguf.header import Header
from cadcpp.residency.footprint import block_cache_bytes, compute_bytes, whole_cells
from cadcpp.residency.states import States

_MARGIN = 16 << 20  # of a worker: what the allocator and the kernel hold back
WIDEST = 128  # rows of text in a pass with workers: memory for more is better used for layers, which are streamed else


@dataclass(frozen=True, slots=True)
class Offer:
    """The memory that a worker lends."""

    address: str
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Share:
    """Blocks [first, stop), which one worker keeps and computes, with their keys, values and states; bytes."""

    address: str
    offered: int
    first: int
    stop: int
    weights: int
    cache: int  # keys, values and states, of two contexts, since a long text is read in one of its own
    compute: int  # buffers, and the largest tensor on its way in

    @property
    def n_blocks(self) -> int:
        return self.stop - self.first

    @property
    def n_bytes(self) -> int:
        """All that it takes."""
        return self.weights + self.cache + self.compute

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def place_layers(
    header: Header, offers: Sequence[Offer], n_ctx: int, rows: int, states: States | None = None
) -> tuple[Share, ...]:
    """As many of the last blocks as the workers have memory for, the first worker's before the second's.

    The last ones, since the draft, the embeddings and the output stay here: a pass leaves this machine once and comes
    back once, and between two workers it goes through here. Rows of the largest passes are counted, and what is kept
    of recurrent states.

    Raises ConfigError for a worker that has no room for a single block.
    """
    weights, largest = _block_weights(header)
    caches = _kept(header, n_ctx, states)
    compute = sum(_compute(header, n, n_ctx, states) for n in (rows + WIDEST, rows)) + _MARGIN
    shares: list[Share] = []
    stop = len(weights)
    for offer in reversed(offers):
        first, left = stop, offer.n_bytes - compute
        while first > 0 and left - max(largest[first - 1 : stop]) >= (n := weights[first - 1] + caches[first - 1]):
            first, left = first - 1, left - n
        if first == stop > 0:
            least = compute + largest[stop - 1] + weights[stop - 1] + caches[stop - 1]
            raise ConfigError(
                f"worker {offer.address} lends {offer.n_bytes >> 20} MiB, and a layer takes {(least >> 20) + 1} MiB "
                "there: start it with a larger --ram, lower --ctx, or leave it out"
            )
        mine = slice(first, stop)
        buffers = compute + max(largest[mine], default=0)
        share = Share(offer.address, offer.n_bytes, first, stop, sum(weights[mine]), sum(caches[mine]), buffers)
        shares.insert(0, share)
        stop = first
    return tuple(share for share in shares if share.n_blocks)


def without_blocks(header: Header, first: int) -> Header:
    """The header of a model as far as this machine computes it: without blocks from ``first`` on."""
    tensors = tuple(t for t in header.tensors if (block := block_of(t)) is None or block < first)
    metadata = header.metadata | {
        f"{header.architecture}.block_count": first,
        f"{header.architecture}.nextn_predict_layers": 0,  # those are at the end
    }
    return replace(header, tensors=tensors, metadata=metadata, n_bytes=sum(t.n_bytes for t in tensors))


def _kept(header: Header, n_ctx: int, states: States | None) -> list[int]:
    """What each block keeps from token to token, in both contexts; one that reads a text has one sequence."""
    n_states = (states.n_chains + 1) * (1 + states.n_snapshots) if states else 0
    state, with_state = n_states * sum(block_state_bytes(header)), state_blocks(header)
    caches = block_cache_bytes(header, whole_cells(n_ctx))
    return [2 * cache + (state if block in with_state else 0) for block, cache in enumerate(caches)]


def _compute(header: Header, rows: int, n_ctx: int, states: States | None) -> int:
    """Buffers of one context; logits are made here."""
    of_states = {"n_seq": states.n_chains, "n_snapshots": states.n_snapshots} if states else {}
    return compute_bytes(header, rows, 0, whole_cells(n_ctx), **of_states)


def _block_weights(header: Header) -> tuple[list[int], list[int]]:
    """Bytes of every block, and of its largest tensor."""
    n_blocks, unused = header.number("block_count"), ahead_blocks(header)
    weights, largest = [0] * n_blocks, [0] * n_blocks
    for tensor in header.tensors:
        block = block_of(tensor)
        if block is not None and block < n_blocks and block not in unused:
            weights[block] += tensor.n_bytes
            largest[block] = max(largest[block], tensor.n_bytes)
    return weights, largest
