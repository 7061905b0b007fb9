"""How many threads compute: it follows what other programs leave of the cores."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cadcpp.system.cpu import left_by
from cadcpp.system.cpu_load import CpuLoad

_EVERY_S = 1.0
_PATIENCE = 2  # looks that must find a core idle before it is taken; one that is wanted is given up at once


def thread_counts(n: int, most: int) -> tuple[int, ...]:
    """Numbers of threads that a session which begins with ``n`` may change between, on a machine for ``most``."""
    return tuple(sorted({1, most // 2, most - 1, most, n} - {0}))


class Team(Protocol):
    """What computes with a number of threads that can be changed, such as a context."""

    n_threads: int

    def use_threads(self, n: int) -> None: ...


@dataclass(slots=True)
class ComputeThreads:
    """The number of threads of contexts that take turns.

    Two teams on the same cores wait for each other after every operation: two processes of two threads each take a
    third longer on two cores than two of one thread.
    """

    n: int
    counts: Sequence[int] = ()  # to change between, rising; without any, ``n`` stays
    load: CpuLoad = field(default_factory=CpuLoad)
    changed: bool = False  # whether it ever did
    contexts: list[Team] = field(default_factory=list)
    _n_idle: int = 0  # looks in a row that found a core idle

    def follow(self) -> bool:
        """Before a round: look at what others compute, once a second; whether that changes the number."""
        if len(self.counts) < 2 or self.load.seconds < _EVERY_S:
            return False
        left = left_by(self.load.busy(), self.load.n_cpus)
        n = max(count for count in self.counts if count <= max(left, self.counts[0]))
        self._n_idle = self._n_idle + 1 if n > self.n else 0
        if n == self.n or 0 < self._n_idle < _PATIENCE:
            return False
        self.n, self._n_idle, self.changed = n, 0, True
        for context in self.contexts:
            context.use_threads(n)
        return True
