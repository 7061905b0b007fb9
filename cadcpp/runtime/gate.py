"""When the draft may go on beside a verify pass."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from cadcpp.link.traffic import Workers
from cadcpp.residency.pager import Pager
from cadcpp.telemetry.trace import Trace

_NOTICE_S = 0.02  # within which the end of a pass is noticed beside it


@dataclass(slots=True)
class Gate:
    """Open while a pass waits for the disk or for workers. Asked before each decode of the draft, which it so knows."""

    pager: Pager
    workers: Workers
    over: Callable[[], bool]  # whether the pass is
    trace: Trace | None
    opened: float | None = None

    def __call__(self) -> bool:
        """Wait until it opens; False when the pass is over."""
        if self.trace is not None and self.opened is not None:
            self.trace.span("draft", "ahead", self.opened, time.perf_counter())
        self.opened = None
        while not self.over():
            if self.workers.compute() or self.pager.wait_for_stall(_NOTICE_S):
                self.opened = time.perf_counter()
                return True
        return False
