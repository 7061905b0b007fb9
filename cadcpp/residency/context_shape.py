"""The sizes of one llama.cpp context: the plan makes them, the context is built from them."""

from dataclasses import dataclass, replace

from cadcpp.errors import ConfigError
from cadcpp.gguf.blocks import state_bytes
from cadcpp.gguf.header import Header
from cadcpp.residency.footprint import cache_bytes, compute_bytes, whole_cells
from cadcpp.residency.kernel_mode import KernelMode
from cadcpp.residency.states import States
from cadcpp.tree.chains import Chains
from cadcpp.tree.granularity import Granularity
from cadcpp.tree.prices import TEXT_ROWS

MAX_SEQ = 256  # llama.cpp's LLAMA_MAX_SEQ


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextShape:
    """Size of one context. Raises ConfigError for one that llama.cpp cannot make.

    Numbers are those of the text and its trees; with what passes are filled up with they are ``sequences``, ``rows``,
    ``outputs`` and ``cells``.
    """

    n_cells: int  # KV cells: the text, and a tree as far as there is room
    n_batch: int  # rows of one decode, computed at once
    n_outputs: int  # rows of one decode that ask for logits; buffers are made for at least n_seq
    n_seq: int  # KV sequences
    shared: bool = True  # cells are any sequence's; else each has its n_cells / n_seq, and attention reads no others
    states: States | None = None  # of a recurrent model, whose passes are chains of equal length
    granularity: Granularity = Granularity()  # of the number of rows, and of those that ask for logits
    f16_values: bool = False  # values of the KV cache are in f16; they and all keys are in q8_0 otherwise
    routers_by_row: bool = False  # a mixture's routers are computed as those of a single row

    def __post_init__(self) -> None:
        for name in ("n_cells", "n_batch", "n_outputs", "n_seq"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.sequences > MAX_SEQ:
            raise ConfigError(f"n_seq must be at most {MAX_SEQ - self.granularity.padding}, got {self.n_seq}")

    @property
    def sequences(self) -> int:
        """With a spare one at least, unless each would have a state of its own."""
        return self.n_seq if self.states else max(self.n_seq + self.granularity.padding, 2)

    @property
    def rows(self) -> int:
        return self.granularity.whole(self.n_batch)

    def step(self, most: int | None = None) -> int:
        """Tokens of text that a pass of ``most`` rows takes without being filled up."""
        most = self.n_batch if most is None else most
        return next((n for n in range(most, 0, -1) if self.granularity.whole(n) == n), most)

    @property
    def outputs(self) -> int:
        return max(self.granularity.whole(self.n_outputs), self.sequences)  # fewer would end the process

    @property
    def cells(self) -> int:
        return whole_cells(self.n_cells + self.granularity.padding)

    def chains(self, n_text: int, n_snapshots: int) -> Chains:
        """What a pass of a recurrent model may consist of beside ``n_text`` tokens, with so many snapshots kept."""
        return Chains(most=self.n_seq, n_text=n_text, n_doubtful=n_snapshots or None, granularity=self.granularity)

    def cache_bytes(self, header: Header) -> int:
        """Of the KV cache of a model with this header."""
        return cache_bytes(header, self.cells, f16_values=self.f16_values)

    def states_bytes(self, header: Header) -> int:
        """Of recurrent states, wherever they are kept."""
        if self.states is None:
            return 0
        here, states = state_bytes(header), self.states
        return here * self.sequences * (1 + states.n_snapshots) + (here + states.elsewhere) * states.n_copies

    def buffer_bytes(self, header: Header) -> int:
        """Of the buffers that a decode computes in, its logits included."""
        n_outputs, n_snapshots = self.granularity.whole(self.n_outputs), self.states.n_snapshots if self.states else 0
        return compute_bytes(header, self.rows, n_outputs, self.cells, n_seq=self.sequences, n_snapshots=n_snapshots)

    def n_bytes(self, header: Header) -> int:
        """All that the context takes."""
        return self.cache_bytes(header) + self.states_bytes(header) + self.buffer_bytes(header)


def verifier_shape(
    n_ctx: int,
    rows: int,
    *,
    n_prompt: int = 0,
    logits_all: bool = False,
    kernels: KernelMode = KernelMode(),  # noqa: B008 - frozen
    states: States | None = None,
) -> ContextShape:
    """For passes of a tree of ``rows`` beside ``n_prompt`` tokens of text, or of a short text where these are few."""
    n_batch = max(rows + n_prompt, TEXT_ROWS)
    return ContextShape(
        n_cells=n_ctx,
        n_batch=n_batch,
        n_outputs=n_batch if logits_all else rows,
        n_seq=states.n_chains if states else min(rows, MAX_SEQ - kernels.granularity.padding),
        granularity=kernels.granularity,
        states=states,
        f16_values=kernels.f16_values,
        routers_by_row=kernels.routers_by_row,
    )


def draft_shape(
    n_ctx: int, rows: int, *, n_prompt: int = 0, states: States | None = None, f16_values: bool = False
) -> ContextShape:
    """For growing a tree of ``rows``; KV sequences for a quarter of them cost no accepted token (bench.studies)."""
    n_seq = states.n_chains if states else max(rows // 4, 8)
    return ContextShape(
        n_cells=n_ctx,
        n_batch=max(n_prompt, TEXT_ROWS),
        n_outputs=n_seq,
        n_seq=n_seq,
        states=states,
        f16_values=f16_values,
    )


def wide_shape(
    narrow: ContextShape, header: Header, n_rows: int, n_cells: int, rows: int, room: int
) -> ContextShape | None:
    """For reading a text of ``n_cells`` in passes of up to ``n_rows``, or as many as ``room`` bytes allow.

    None if these are no more than ``narrow`` has. Fewer would be slower, and with as few as there are snapshots of
    states llama.cpp ends the process.
    """
    least = replace(narrow, n_cells=n_cells, n_outputs=1)
    while n_rows > narrow.n_batch and wide_bytes(replace(least, n_batch=n_rows), header) > room:
        n_rows //= 2
    if n_rows <= narrow.n_batch:
        return None
    n_seq = 1 if narrow.states else min(rows, MAX_SEQ - narrow.granularity.padding)
    return replace(narrow, n_cells=n_cells, n_batch=n_rows, n_outputs=rows, n_seq=n_seq)


def wide_bytes(shape: ContextShape, header: Header) -> int:
    """What a second, wide context takes, the copy of the cache on its way included."""
    return shape.n_bytes(header) + shape.cache_bytes(header)
