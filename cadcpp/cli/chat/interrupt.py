"""Ctrl-C while a reply is written."""

import signal
from collections.abc import Generator, Iterator
from types import FrameType, TracebackType
from typing import TypeVar

T = TypeVar("T")


class Stopped(KeyboardInterrupt):
    """The reply is to end here."""


class Interrupts:
    """Inside, the first Ctrl-C ends what `guard` waits for, and later ones are counted and nothing else."""

    def __init__(self) -> None:
        self.n = 0
        self._waiting = False

    def __enter__(self) -> "Interrupts":
        self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def guard(self, stream: Generator[T, None, None]) -> Iterator[T]:
        """The items of ``stream``; raises Stopped between two of them, or while the next one is computed."""
        while True:
            if self.n:
                raise Stopped
            self._waiting = True
            try:
                item = next(stream)
            except StopIteration:
                return
            finally:
                self._waiting = False
            yield item

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self.n += 1
        if self.n == 1 and self._waiting:
            self._waiting = False
            raise Stopped
