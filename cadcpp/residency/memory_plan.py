"""The memory plan: made from the models' headers alone, before anything is loaded."""

from dataclasses import asdict, dataclass
from typing import Any

from cadcpp.errors import ConfigError
from cadcpp.gguf.header import Header
from cadcpp.residency.expert_cache import kept_bytes
from cadcpp.residency.layout import Layout, lay_out
from cadcpp.tree.prices import TEXT_ROWS

_Q8_0 = 34 / 32  # bytes per element of the KV caches
_PER_TOKEN = 350  # bytes that llama.cpp keeps for each token of a vocabulary, measured
PYTHON = 58 << 20  # interpreter, numpy, Jinja, libraries, and what two headers and a first round leave, measured
_MARGIN = 16 << 20  # page tables, the kernel's own memory, what the allocator holds back
_WIDEST = 512  # rows of one pass; more is no faster and takes more memory
_CELLS = 256  # llama.cpp rounds the number of KV cells up to this


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where the memory goes; bytes. What is left over after everything else holds the verifier."""

    ram: int
    python: int
    draft: int  # weights
    draft_cache: int
    draft_compute: int
    vocabulary: int  # the verifier's
    cache: int
    compute: int
    margin: int
    window: int  # streamed weights in flight; 0 if everything fits
    experts: int  # room for a mixture's experts
    layout: Layout
    routed: int = 0  # bytes of the experts that one row uses

    @property
    def fixed(self) -> int:
        """Everything that is not verifier weights."""
        parts = (self.python, self.draft, self.draft_cache, self.draft_compute)
        return sum(parts) + self.vocabulary + self.cache + self.compute + self.margin

    @property
    def streams(self) -> bool:
        """Whether a part of the verifier must be read on every pass."""
        return self.layout.streamed_bytes > 0 or self.experts < self.layout.expert_bytes

    @property
    def read_bytes(self) -> int:
        """Predicted bytes read for one row: what is streamed, and its experts as far as they are not in memory."""
        missing = 1 - kept_bytes(self.layout.experts, self.experts) / max(self.layout.expert_bytes, 1)
        return self.layout.streamed_bytes + int(missing * self.routed)

    @property
    def peak(self) -> int:
        """Predicted memory in use, page cache included."""
        return self.fixed - self.margin + self.layout.pinned_bytes + self.window + self.experts

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        del values["layout"]
        return values | {
            "fixed": self.fixed,
            "pinned": self.layout.pinned_bytes,
            "streamed": self.layout.streamed_bytes,
            "sparse": self.layout.sparse_bytes,
            "all_experts": self.layout.expert_bytes,
            "read_bytes_per_pass": self.read_bytes,
            "peak": self.peak,
        }


def make_plan(
    verifier: Header,
    draft: Header | None,
    *,
    ram: int,
    n_ctx: int,
    rows: int,
    n_outputs: int | None = None,
    python: int = PYTHON,
) -> Plan:
    """Divide ``ram`` bytes among everything that a session needs, with trees of up to ``rows``.

    ``n_outputs`` rows of a pass may ask for logits, those of a tree unless given; ``python`` bytes the process
    holds before anything is loaded.

    Raises ConfigError, with what would help, if nothing is left for the verifier to pass through.
    """
    n_cells = whole_cells(n_ctx)
    fixed: dict[str, int] = {
        "python": python,
        "draft": draft.n_bytes if draft else 0,
        "draft_cache": cache_bytes(draft, n_cells) if draft else 0,
        "draft_compute": _draft_compute_bytes(draft, rows),
        "vocabulary": _vocabulary_bytes(verifier),
        "cache": cache_bytes(verifier, n_cells),
        "compute": _tree_compute_bytes(verifier, rows, n_outputs or rows),
        "margin": _MARGIN,
    }
    room = ram - sum(fixed.values())
    whole = lay_out(verifier, verifier.n_bytes)
    routed = _routed_bytes(verifier, whole)
    if room >= whole.pinned_bytes + whole.expert_bytes + whole.sparse_bytes:
        return Plan(ram=ram, window=0, experts=whole.expert_bytes, layout=whole, routed=routed, **fixed)
    experts = _expert_room(whole, room)
    room -= experts
    if room >= whole.pinned_bytes:
        return Plan(ram=ram, window=0, experts=experts, layout=whole, routed=routed, **fixed)
    least = window_bytes(verifier, 0) + _always(verifier)
    if room < least:
        enough = (sum(fixed.values()) + least >> 20) + 1
        raise ConfigError(
            f"{ram >> 20} MiB are too few: everything but the verifier takes {sum(fixed.values()) >> 20} MiB, and it "
            f"needs {least >> 20} MiB to stream through; allow {enough} MiB with --ram, "
            "lower --ctx, or take a smaller draft"
        )
    pinned = 0
    for _ in range(4):  # the more is pinned, the smaller the streamed layers and their window
        window = window_bytes(verifier, pinned)
        pinned = room - window
    layout = lay_out(verifier, pinned)
    return Plan(ram=ram, window=window, experts=experts, layout=layout, routed=routed, **fixed)


def _expert_room(whole: Layout, room: int) -> int:
    """What the dense weights, which every pass uses, leave; at least one layer's experts have to pass through."""
    one_layer = max((layer.n_bytes for layer in whole.experts), default=0)
    return min(max(room - whole.pinned_bytes, min(one_layer, room // 2), 0), whole.expert_bytes)


def _routed_bytes(header: Header, whole: Layout) -> int:
    """Of all experts' bytes, those that one row uses."""
    n_used, n_experts = (header.number(key) for key in ("expert_used_count", "expert_count"))
    return whole.expert_bytes * n_used // n_experts if n_experts else 0


def whole_cells(n: int) -> int:
    """KV cells that llama.cpp makes where ``n`` are asked for."""
    return -(-n // _CELLS) * _CELLS


def draft_seqs(rows: int) -> int:
    """KV sequences for growing a tree: a quarter of its rows cost no accepted token (bench/acceptance)."""
    return max(rows // 4, 8)


def batch_rows(rows: int) -> int:
    """Rows of one pass where memory is short: room for a tree, and for a short prompt in one pass."""
    return max(rows, TEXT_ROWS)


def wide_bytes(header: Header, n_rows: int, n_cells: int, n_outputs: int) -> int:
    """What a second, wide context takes, the copy of the cache on its way included."""
    return compute_bytes(header, n_rows, n_outputs) + 2 * cache_bytes(header, whole_cells(n_cells))


def wide_rows(plan: Plan, header: Header, n_rows: int, n_cells: int) -> int:
    """The largest number of rows up to ``n_rows`` for which the pinned part can lend the memory."""
    rows = min(n_rows, _WIDEST)
    while rows > 1 and wide_bytes(header, rows, n_cells, 1) > plan.layout.pinned_bytes // 2:
        rows //= 2
    return rows


def window_bytes(header: Header, pinned: int) -> int:
    """Streamed bytes in memory at a time: the layer in use, the next one, and some on the way.

    More would take room from the pinned part, which saves the same bytes on every pass.
    """
    layout = lay_out(header, pinned)
    layers: dict[int, int] = {}
    for extent in layout.streamed:
        layers[extent.layer] = layers.get(extent.layer, 0) + len(extent)
    return 2 * max(layers.values(), default=0) + (8 << 20)


def cache_bytes(header: Header, n_cells: int) -> int:
    """Size of one q8_0 KV cache."""
    heads = header.number("attention.head_count") or 1
    kv_heads = header.number("attention.head_count_kv") or heads
    size = header.number("embedding_length") // heads
    width = header.number("attention.key_length", size) + header.number("attention.value_length", size)
    return int(header.number("block_count", 1) * kv_heads * width * n_cells * _Q8_0)


def compute_bytes(header: Header, n_rows: int, n_outputs: int) -> int:
    """Buffers of one context for ``n_rows`` at once, of which ``n_outputs`` ask for logits (held twice)."""
    n_used = header.number("expert_used_count") or 1
    ups = (t for t in header.tensors if "ffn_up" in t.name)
    n_ff = max((t.shape[1] * (n_used if "_exps" in t.name else 1) for t in ups), default=0)
    n_embd = header.number("embedding_length")
    activations = 4 * n_rows * max(3 * n_ff + 4 * n_embd, 12 * n_embd)
    logits = 4 * n_outputs * header.n_vocab
    return max(activations, logits) + logits


def tree_bytes(verifier: Header, draft: Header | None, rows: int) -> int:
    """Buffers of both models that grow with a tree of up to ``rows``."""
    return _tree_compute_bytes(verifier, rows, rows) + _draft_compute_bytes(draft, rows)


def _tree_compute_bytes(verifier: Header, rows: int, n_outputs: int) -> int:
    return compute_bytes(verifier, batch_rows(rows), n_outputs)


def _draft_compute_bytes(draft: Header | None, rows: int) -> int:
    return compute_bytes(draft, TEXT_ROWS, draft_seqs(rows)) if draft else 0


def _vocabulary_bytes(header: Header) -> int:
    return _PER_TOKEN * header.n_vocab


def _always(header: Header) -> int:
    """Bytes that every layout pins: what no block owns, and the odd ends of layers."""
    return lay_out(header, 0).pinned_bytes
