"""How long something may be used: until it is closed, and in no other process than the one that made it."""

import os

from cadcpp.errors import ClosedError

_n_forks = 0  # between the first process and this one


class Lifetime:
    """Of something that has native memory and threads, which a forked child cannot use."""

    def __init__(self, what: str) -> None:
        self._what, self._n_forks, self.ended = what, _n_forks, False

    @property
    def inherited(self) -> bool:
        """Whether this is a forked child, and the thing its parent's: then nothing of it may be freed either."""
        return self._n_forks != _n_forks

    @property
    def over(self) -> bool:
        return self.ended or self.inherited

    def check(self) -> None:
        """Raise ClosedError if it is over."""
        if self.inherited:
            raise ClosedError(f"{self._what} was made before this process was forked: make another one in this process")
        if self.ended:
            raise ClosedError(f"{self._what} is closed: make another one")

    def end(self) -> bool:
        """It is over from now on; whether it was not before."""
        was_over, self.ended = self.over, True
        return not was_over


def _count_fork() -> None:
    global _n_forks
    _n_forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)
