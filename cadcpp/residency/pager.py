"""What a pager is, and one that leaves paging to the kernel."""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cadcpp.tree.prices import Floats, RowReads, alike


@dataclass(frozen=True, slots=True)
class PagerState:
    """A snapshot; bytes and seconds since the pager started."""

    pinned_bytes: int = 0  # resident for good so far
    locked_bytes: int = 0  # of these, what mlock holds
    streamed_bytes: int = 0
    expert_bytes: int = 0  # read because a pass was routed to them
    experts_used: int = 0  # by passes, one that several rows of a pass use counted once
    experts_read: int = 0  # ... of them, that were not in memory
    experts_ahead: int = 0  # read before it was known whether they are used
    experts_wrong: int = 0  # ... of them, that were not
    expert_seconds: float = 0.0  # compute waited for them; a part of stall_seconds
    expert_alike: float = 0.0  # n rows of a pass use as many as n to this power would that are drawn at random
    routed_seconds: Floats | None = field(default=None, compare=False)  # of reading those of 0, 1, 2, ... rows, [SIZES]
    row_reads: RowReads = field(default=alike, compare=False)  # how many experts rows of some tokens would read by now
    stall_seconds: float = 0.0  # compute waited for the disk
    passes: int = 0
    waiting_seconds: float = 0.0  # for how long compute has been waiting for the disk by now
    pass_bytes: int = 0  # streamed by a pass: what is planned, and pinned chunks evicted, borrowed or reserved
    byte_seconds: float = 0.0  # of reading one byte, as measured
    ahead_seconds: float = 0.0  # how long the disk has work between two passes
    layers_reported: bool | None = None  # by llama.cpp, in the first pass; None before it and where that is not needed

    @property
    def pass_seconds(self) -> float:
        """Least time of a pass at the disk's measured speed."""
        return self.pass_bytes * self.byte_seconds


class Pager(Protocol):
    """What the verifier tells about its passes. All of it is advice: tokens never depend on it.

    What cannot be read is a ModelError where a pass would wait for it; the next pass tries again.
    """

    def start_pass(self, tokens: NDArray[np.int32]) -> None:
        """A pass over rows of these tokens, [n], begins; [0]: nobody knows whose rows they are."""
        ...

    def experts_chosen(self, layer: int, chosen: NDArray[np.int32], n_own: int) -> None:
        """The rows of a layer are routed to experts, [n, n_used]; those after the first ``n_own`` fill the pass up."""
        ...

    def layer_done(self, layer: int) -> None: ...

    def end_pass(self, whole: bool) -> None:
        """The pass is over; ``whole`` if it ran to its end."""
        ...

    def borrow(self, n_bytes: int) -> AbstractContextManager[None]:
        """Inside, ``n_bytes`` fewer are kept in memory, so that somebody else can have them."""
        ...

    def reserve(self, n_bytes: int) -> None:
        """Keep ``n_bytes`` less in memory than planned, from now on."""
        ...

    def wait_for_stall(self, seconds: float) -> bool:
        """Whether compute waits for the disk now, or begins to within ``seconds``."""
        ...

    def state(self) -> PagerState: ...

    def close(self) -> None: ...


_NOTHING = PagerState()


class NullPager:
    """Leaves paging to the kernel."""

    def start_pass(self, tokens: NDArray[np.int32]) -> None:
        pass

    def experts_chosen(self, layer: int, chosen: NDArray[np.int32], n_own: int) -> None:
        pass

    def layer_done(self, layer: int) -> None:
        pass

    def end_pass(self, whole: bool) -> None:
        pass

    def borrow(self, n_bytes: int) -> AbstractContextManager[None]:
        return nullcontext()

    def reserve(self, n_bytes: int) -> None:
        pass

    def wait_for_stall(self, seconds: float) -> bool:
        time.sleep(seconds)
        return False

    def state(self) -> PagerState:
        return _NOTHING

    def close(self) -> None:
        pass
