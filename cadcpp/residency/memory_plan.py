"""The memory plan: made from the models' headers alone, before anything is loaded."""

from dataclasses import asdict, dataclass
from typing import Any

from cadcpp.errors import ConfigError
from cadcpp.gguf.header import Header
from cadcpp.residency.expert_cache import kept_bytes
from cadcpp.residency.footprint import (
    cache_bytes,
    draft_compute_bytes,
    tree_compute_bytes,
    vocabulary_bytes,
    whole_cells,
    wide_bytes,
    window_bytes,
)
from cadcpp.residency.layout import Layout, lay_out

PYTHON = 58 << 20  # interpreter, numpy, Jinja, libraries, and what two headers and a first round leave, measured
_MARGIN = 16 << 20  # page tables, the kernel's own memory, what the allocator holds back
_WIDEST = 512  # rows of one pass; more is no faster and takes more memory


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
        "draft_compute": draft_compute_bytes(draft, rows),
        "vocabulary": vocabulary_bytes(verifier),
        "cache": cache_bytes(verifier, n_cells),
        "compute": tree_compute_bytes(verifier, rows, n_outputs or rows),
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


def wide_rows(plan: Plan, header: Header, n_rows: int, n_cells: int) -> int:
    """The largest number of rows up to ``n_rows`` for which the pinned part can lend the memory."""
    rows = min(n_rows, _WIDEST)
    while rows > 1 and wide_bytes(header, rows, n_cells, 1) > plan.layout.pinned_bytes // 2:
        rows //= 2
    return rows


def _always(header: Header) -> int:
    """Bytes that every layout pins: what no block owns, and the odd ends of layers."""
    return lay_out(header, 0).pinned_bytes
