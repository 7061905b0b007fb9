"""The memory plan: made from the models' headers alone, before anything is loaded."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cadcpp.errors import ConfigError
from cadcpp.gguf.header import Header
from cadcpp.residency.context_shape import ContextShape, draft_shape, verifier_shape, wide_shape
from cadcpp.residency.expert_cache import kept_bytes, lendable_bytes
from cadcpp.residency.footprint import vocabulary_bytes, window_bytes
from cadcpp.residency.kernel_mode import KernelMode, KernelModes
from cadcpp.residency.layout import Layout, lay_out
from cadcpp.residency.placement import WIDEST, Share
from cadcpp.residency.states import States, draft_states, verifier_states
from cadcpp.tree.prices import TEXT_ROWS, Floats
from cadcpp.util.byte_size import format_size

PYTHON = 58 << 20  # interpreter, numpy, Jinja, libraries, and what two headers and a first round leave, measured
_FIRST_CELLS = 256  # of KV caches, which a plan has memory for in any case
_MARGIN = 16 << 20  # page tables, the kernel's own memory, what the allocator holds back
_MAPPED = 512  # bytes that one of page tables maps; experts come and go, their tables stay
_WIDEST = 512  # rows of one pass; more is no faster and takes more memory
FIXED = ("python", "draft", "draft_cache", "draft_compute", "vocabulary", "cache", "states", "compute", "margin")


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
    states: int  # recurrent ones, the verifier's
    compute: int
    margin: int
    window: int  # streamed weights in flight; 0 if everything fits
    experts: int  # room for a mixture's experts
    layout: Layout
    verifier_shape: ContextShape
    draft_shape: ContextShape | None
    routed: int  # bytes of the experts that one row uses
    kernels: KernelMode
    workers: tuple[Share, ...] = ()  # what other machines keep and compute; all else is without that
    unfilled: int = 0  # of the KV caches, which weights have until a text fills it
    cell_bytes: float = 0.0  # of a cell in all KV caches
    least: int = 0  # of ``ram`` with which all of this could be streamed; 0 if everything fits
    left_out: int = 0  # weights of a draft that is not loaded, since experts are worth more in its memory
    left_out_why: str = ""  # how that is known
    hit_rate: float | None = None  # share of a row's experts that are expected in memory; None: not learned yet
    limited: str = ""  # what of streaming is not to be had on this system, and why

    @property
    def fixed(self) -> int:
        """Everything that is not verifier weights."""
        return sum(getattr(self, name) for name in FIXED)

    @property
    def pages_experts(self) -> bool:
        """Whether experts are read as rows need them."""
        return self.streams and bool(self.layout.experts)

    @property
    def drafting(self) -> int:
        """What a draft takes of it, all in all; what its cache has not filled weights have in any case."""
        return self.draft + max(self.draft_cache - self.unfilled, 0) + self.draft_compute

    @property
    def left_out_because(self) -> str:
        """Why a draft is not loaded, in words."""
        size = format_size(self.left_out)
        return f"the verifier's experts have more use for its {size} of memory, {self.left_out_why}"

    @property
    def streams(self) -> bool:
        """Whether a part of the verifier must be read on every pass."""
        return self.layout.streamed_bytes > 0 or self.experts < self.layout.expert_bytes

    @property
    def read_bytes(self) -> int:
        """Predicted bytes read for one row: what is streamed, and its experts as far as they are not in memory."""
        return self.layout.streamed_bytes + int(self.routed_bytes(np.ones(1))[0])

    @property
    def kept_experts(self) -> int:
        """Bytes of experts that stay between two passes."""
        return kept_bytes(self.layout.experts, self.experts)

    def routed_bytes(self, n_rows: NDArray[Any]) -> Floats:
        """Predicted bytes of experts read for passes of so many rows, [n]: as if they were drawn at random."""
        whole = max(self.layout.expert_bytes, 1)
        missing = 1 - (self.kept_experts / whole if self.hit_rate is None else self.hit_rate)
        used = 1 - (1 - self.routed / whole) ** np.asarray(n_rows, np.float64)
        return np.asarray(missing * self.layout.expert_bytes * used)

    @property
    def peak(self) -> int:
        """Predicted memory in use, page cache included; a model that fits is read whole, its sparse rows too."""
        sparse = 0 if self.streams else self.layout.sparse_bytes
        weights = self.layout.pinned_bytes + self.window + self.experts + sparse
        return self.fixed - self.margin - self.unfilled + weights

    @property
    def lendable(self) -> int:
        """Of the weights that stay, what buffers of large trees may have; a full cache takes its share first."""
        return (self.layout.pinned_bytes - (0 if self.layout.experts else self.unfilled)) // 2

    def wide_shape(self, header: Header, n_rows: int, n_cells: int, rows: int) -> ContextShape | None:
        """Of a short-lived context for a text that does not fit into a pass, if weights that stay can make room."""
        room = self.lendable + lendable_bytes(self.layout.experts, self.experts - self.unfilled)
        widest = WIDEST if self.workers else _WIDEST
        return wide_shape(self.verifier_shape, header, min(n_rows, widest), n_cells, rows, room)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        del values["layout"], values["kernels"], values["limited"]
        return values | {
            "workers": [share.to_dict() for share in self.workers],
            "kernels": self.kernels.name,
            "cache_values": "f16" if self.kernels.f16_values else "q8_0",
            "fixed": self.fixed,
            "pinned": self.layout.pinned_bytes,
            "streamed": self.layout.streamed_bytes,
            "sparse": self.layout.sparse_bytes,
            "unused": self.layout.unused_bytes,
            "all_experts": self.layout.expert_bytes,
            "hit_rate": None if self.hit_rate is None else round(self.hit_rate, 4),
            "read_bytes_per_pass": self.read_bytes,
            "peak": self.peak,
            "exact": self.kernels.exact,
            "inexact_because": self.kernels.reason,
            "streaming_limited": self.limited,
        }


def make_plan(
    verifier: Header,
    draft: Header | None,
    *,
    ram: int,
    n_ctx: int,
    rows: int,
    n_prompt: int = 0,
    logits_all: bool = False,
    python: int = PYTHON,
    fills: bool = False,
    kernels: KernelModes = KernelModes(),  # noqa: B008 - frozen
) -> Plan:
    """Divide ``ram`` bytes among everything that a session needs, with trees of up to ``rows``.

    Where everything fits a pass takes up to ``n_prompt`` tokens of text beside a tree; with ``logits_all`` every row
    of it may ask for logits. ``python`` bytes the process holds before anything is loaded. With ``fills`` KV caches
    take memory as a text fills them; where weights are streamed, more of them stay until then.

    Raises ConfigError, with what would help, if nothing is left for the verifier to pass through.
    """
    whole = lay_out(verifier, verifier.n_bytes)
    margin = _MARGIN + whole.expert_bytes // _MAPPED
    common = {"ram": ram, "python": python, "routed": _routed_bytes(verifier, whole), "margin": margin}
    for states in _states(verifier, ram, kernels, streamed=False):
        for n in _prompt_sizes(n_prompt):
            budget = _budget(verifier, draft, n_ctx, rows, n, logits_all, kernels.kept, states) | common
            room = ram - _fixed(budget)
            if room >= whole.pinned_bytes + whole.expert_bytes + whole.sparse_bytes:
                return Plan(window=0, experts=whole.expert_bytes, layout=whole, **budget)
    states = next(_states(verifier, ram, kernels, streamed=True))
    budget = _budget(verifier, draft, n_ctx, rows, 0, logits_all, kernels.streamed, states) | common
    fixed = _fixed(budget)
    least = fixed + _least_room(whole, verifier)
    unfilled, cell_bytes = _unfilled(budget, verifier, draft, whole, ram - fixed) if fills else (0, 0.0)
    experts = _expert_room(whole, ram - fixed + unfilled)
    room = ram - fixed + unfilled - experts
    budget |= {"experts": experts, "least": least, "unfilled": unfilled, "cell_bytes": cell_bytes}
    if room >= whole.pinned_bytes:
        return Plan(window=0, layout=whole, **budget)
    _check_room(ram, fixed, least)
    pinned = 0
    for _ in range(4):  # the more is pinned, the smaller the streamed layers and their window
        window = window_bytes(verifier, pinned)
        pinned = room - window
    return Plan(window=window, layout=lay_out(verifier, pinned), **budget)


def _unfilled(
    budget: dict[str, Any], verifier: Header, draft: Header | None, whole: Layout, room: int
) -> tuple[int, float]:
    """Bytes of the KV caches that weights have until a text fills them, and bytes of a cell.

    They have room for some text in any case. Where weights nearly fit they get less: some are streamed all the same, so
    that more can be. Of a mixture only experts can give it back.
    """
    pairs = ((budget["verifier_shape"], verifier), (budget["draft_shape"], draft))
    cell_bytes = sum(shape.cache_bytes(header) / shape.cells for shape, header in pairs if shape and header)
    most = (whole.pinned_bytes + whole.expert_bytes - room) // 2
    if whole.expert_bytes:
        most = min(most, lendable_bytes(whole.experts, _expert_room(whole, room)))
    beyond = budget["verifier_shape"].cells - _FIRST_CELLS
    return max(min(int(cell_bytes * beyond), most), 0), cell_bytes


def _states(verifier: Header, ram: int, kernels: KernelModes, *, streamed: bool) -> Iterator[States | None]:
    """What may be kept of recurrent states, the best first."""
    if kernels.states is not None:
        return iter((kernels.states,))
    return verifier_states(verifier, ram, snapshots=kernels.snapshots, streamed=streamed)


def _prompt_sizes(n_prompt: int) -> list[int]:
    """Tokens of text in one pass, the most first; none beyond what a tree's rows have room for is the least."""
    sizes = []
    while n_prompt > TEXT_ROWS // 2:
        sizes.append(n_prompt)
        n_prompt //= 2
    return [*sizes, 0]


def _budget(
    verifier: Header,
    draft: Header | None,
    n_ctx: int,
    rows: int,
    n_prompt: int,
    logits_all: bool,
    kernels: KernelMode,
    states: States | None,
) -> dict[str, Any]:
    """Everything but the verifier's weights: the contexts' shapes and what they take."""
    draft = draft if kernels.drafts else None
    mine = verifier_shape(n_ctx, rows, n_prompt=n_prompt, logits_all=logits_all, kernels=kernels, states=states)
    drafts = (
        draft_shape(n_ctx, rows, n_prompt=n_prompt, states=draft_states(draft), f16_values=kernels.f16_values)
        if draft
        else None
    )
    return {
        "verifier_shape": mine,
        "draft_shape": drafts,
        "draft": draft.n_bytes if draft else 0,
        "draft_cache": drafts.cache_bytes(draft) + drafts.states_bytes(draft) if draft and drafts else 0,
        "draft_compute": drafts.buffer_bytes(draft) if draft and drafts else 0,
        "vocabulary": vocabulary_bytes(verifier),
        "cache": mine.cache_bytes(verifier),
        "states": mine.states_bytes(verifier),
        "compute": mine.buffer_bytes(verifier),
        "kernels": kernels,
    }


def _fixed(budget: dict[str, Any]) -> int:
    return sum(budget[name] for name in FIXED)


def _check_room(ram: int, fixed: int, least: int) -> None:
    if ram < least:
        raise ConfigError(
            f"{ram >> 20} MiB are too few: everything but the verifier takes {fixed >> 20} MiB, and it "
            f"needs {least - fixed >> 20} MiB to stream through; allow {(least >> 20) + 1} MiB with --ram, "
            "lower --ctx, or take a smaller draft"
        )


def _least_room(whole: Layout, verifier: Header) -> int:
    """What a verifier passes through at least; of a mixture one layer's experts have up to half of it."""
    dense = min(window_bytes(verifier, 0) + _always(verifier), whole.pinned_bytes)
    return dense + min(_layer_of_experts(whole), dense)


def _layer_of_experts(whole: Layout) -> int:
    return max((layer.n_bytes for layer in whole.experts), default=0)


def _expert_room(whole: Layout, room: int) -> int:
    """What the dense weights, which every pass uses, leave; at least one layer's experts have to pass through."""
    through = min(_layer_of_experts(whole), room // 2)
    return min(max(room - whole.pinned_bytes, through, 0), whole.expert_bytes)


def _routed_bytes(header: Header, whole: Layout) -> int:
    """Of all experts' bytes, those that one row uses."""
    n_used, n_experts = (header.number(key) for key in ("expert_used_count", "expert_count"))
    return whole.expert_bytes * n_used // n_experts if n_experts else 0


def _always(header: Header) -> int:
    """Bytes that every layout pins: what no block owns, and the odd ends of layers."""
    return lay_out(header, 0).pinned_bytes
