"""Memory for the buffers of a pass: little at first, more of it as wider trees pay."""

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from cadcpp.config import SessionConfig
from cadcpp.gguf.header import Header
from cadcpp.policy.base import Disk
from cadcpp.residency.context_shape import draft_shape, verifier_shape
from cadcpp.residency.kernel_mode import KernelModes
from cadcpp.residency.memory_plan import PYTHON, Plan, make_plan
from cadcpp.residency.pager import PagerState
from cadcpp.residency.states import draft_states
from cadcpp.system.mapping import has_maps
from cadcpp.system.memory_limits import available_bytes
from cadcpp.tree.prices import FIRST_ROWS, SIZES, Floats

_NOTHING_READ = Disk()
_STEP = 8  # rows between which bytes are interpolated


@dataclass(slots=True)
class TreeBuffers:
    """How wide passes may be, at the expense of the weights that stay in memory.

    Buffers keep what they have grown to, so that the widest pass so far counts.
    """

    n_bytes: Floats = field(default_factory=lambda: np.zeros(1))  # [n]: for passes of n rows, up to the widest
    first: int = 0  # rows that there is memory for by plan
    rows: int = 0  # ... and by now

    @classmethod
    def fixed(cls, rows: int) -> "TreeBuffers":
        """Memory for passes of up to ``rows`` is there by plan."""
        return cls(np.zeros(rows + 1), rows, rows)

    @property
    def most(self) -> int:
        """Rows of a tree at most."""
        return len(self.n_bytes) - 1

    @property
    def taken(self) -> int:
        """Bytes beyond the plan that the widest pass so far needs."""
        return self.bytes_for(self.rows)

    def bytes_for(self, n_rows: int) -> int:
        """Bytes beyond the plan that passes of ``n_rows`` need."""
        return int(self._of(n_rows) - self._of(self.first))

    def allow(self, n_rows: int) -> None:
        """A pass of ``n_rows`` comes."""
        self.rows = max(self.rows, n_rows)

    def beyond(self, n: int) -> Floats:
        """Bytes that passes of 0, 1, ... n - 1 rows would still have to take, [n]."""
        rows = np.minimum(np.arange(n), self.most)
        return np.asarray(np.maximum(self.n_bytes[rows] - self._of(self.rows), 0.0))

    def _of(self, n_rows: int) -> float:
        return float(self.n_bytes[min(n_rows, self.most)])


def plan_session(
    config: SessionConfig,
    verifier: Header,
    draft: Header | None,
    kernels: KernelModes = KernelModes(),  # noqa: B008 - frozen
) -> tuple[Plan, TreeBuffers]:
    """A plan, and how wide passes may be or become.

    Raises ConfigError if there is too little memory.
    """
    plan = partial(
        make_plan,
        verifier,
        draft,
        ram=config.ram or available_bytes(),
        n_ctx=config.n_ctx,
        n_prompt=config.n_batch,
        logits_all=config.logits_all,
        python=PYTHON if config.held is None else config.held,
        fills=config.pager and not config.workers and has_maps(),
        kernels=kernels,
    )
    rows = config.tree.max_size
    if config.fallback != "cost" or not config.pager or config.logits_all:
        return plan(rows=rows), TreeBuffers.fixed(rows)
    first = min(FIRST_ROWS, rows)
    narrow = plan(rows=first)
    widest = max(rows, config.tree.max_size_streamed) if narrow.streams else rows
    n_bytes = _bytes_by_rows(verifier, draft, narrow, config.n_ctx, widest)
    lendable = narrow.lendable if narrow.streams else _spare(plan(rows=first, n_prompt=0))
    most = int(np.flatnonzero(n_bytes - n_bytes[first] <= lendable)[-1])
    if not narrow.streams:
        return plan(rows=most), TreeBuffers.fixed(most)
    f16, states = narrow.kernels.f16_values, narrow.verifier_shape.states
    wide = verifier_shape(config.n_ctx, most, kernels=narrow.kernels, states=states)
    wide_draft = draft_shape(config.n_ctx, most, states=draft_states(draft), f16_values=f16) if draft else None
    narrow = replace(narrow, verifier_shape=wide, draft_shape=wide_draft)
    return narrow, TreeBuffers(n_bytes[: most + 1], first, first)


def _spare(plan: Plan) -> int:
    """Bytes that nothing takes where everything fits."""
    return plan.ram - plan.fixed - plan.layout.pinned_bytes - plan.experts


def expected(plan: Plan, tree_buffers: TreeBuffers, byte_s: float) -> Disk:
    """What passes will wait for where reading a byte takes ``byte_s`` seconds."""
    return Disk(
        byte_s=byte_s,
        stream_s=plan.layout.streamed_bytes * byte_s,
        beyond_s=byte_s * tree_buffers.beyond(SIZES),
        routed_s=byte_s * plan.routed_bytes(np.arange(SIZES)),
        ahead_s=plan.window * byte_s,
    )


def measured(pager: PagerState, tree_buffers: TreeBuffers) -> Disk:
    """What the next pass will wait for, as far as a pager has measured it."""
    if pager.byte_seconds == 0 and pager.routed_seconds is None:
        return _NOTHING_READ
    return Disk(
        byte_s=pager.byte_seconds,
        stream_s=pager.pass_seconds,
        beyond_s=pager.byte_seconds * tree_buffers.beyond(SIZES),
        routed_s=np.zeros(SIZES) if pager.routed_seconds is None else pager.routed_seconds,
        row_reads=pager.row_reads,
        ahead_s=pager.ahead_seconds,
    )


def _bytes_by_rows(verifier: Header, draft: Header | None, plan: Plan, n_ctx: int, most: int) -> Floats:
    """Buffers for trees of 0, 1, ... rows, [most + 1]."""

    def of(rows: int) -> int:
        n_draft = draft_shape(n_ctx, rows, states=draft_states(draft)).buffer_bytes(draft) if draft else 0
        mine = verifier_shape(n_ctx, rows, kernels=plan.kernels, states=plan.verifier_shape.states)
        return mine.buffer_bytes(verifier) + n_draft

    steps = np.arange(0, most + _STEP, _STEP)
    return np.interp(np.arange(most + 1), steps, [of(max(int(n), 1)) for n in steps])
