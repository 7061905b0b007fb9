"""Ctrl-C in a chat: what it ends, and how often it came in a row."""

import signal
from collections.abc import Callable, Generator, Iterator
from types import FrameType, TracebackType
from typing import NoReturn, TypeVar

from cadcpp.cli.ending import begin_ending

T = TypeVar("T")


class Stopped(KeyboardInterrupt):
    """The reply is to end here."""


class Interrupts:
    """Inside, Ctrl-C raises where somebody waits, in `reading` and `guard`, and is counted and nothing else elsewhere.

    So one handler is in place from the first line to the last, and no Ctrl-C meets another one between two replies.
    """

    def __init__(self) -> None:
        self.n = 0  # since the last line that was typed
        self._raises: type[KeyboardInterrupt] | None = None

    def __enter__(self) -> "Interrupts":
        self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def reading(self, read: Callable[[], T]) -> T:
        """What ``read`` gives; Ctrl-C meanwhile is a KeyboardInterrupt, as that of a line editor, and not counted."""
        self._raises = KeyboardInterrupt
        try:
            return read()
        finally:
            self._raises = None
            signal.signal(signal.SIGINT, self._on_signal)  # a line editor may leave Python's own behind

    def guard(self, stream: Generator[T, None, None]) -> Iterator[T]:
        """The items of ``stream``; raises Stopped between two of them, or while the next one is computed."""
        while True:
            if self.n:
                raise Stopped
            self._raises = Stopped
            try:
                item = next(stream)
            except StopIteration:
                return
            finally:
                self._raises = None
            yield item

    def leave(self) -> NoReturn:
        """End the program as Ctrl-C does, and let no further one interrupt that."""
        begin_ending()
        raise KeyboardInterrupt

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        kind, self._raises = self._raises, None
        if kind is not KeyboardInterrupt:
            self.n += 1
        if kind is not None:
            raise kind
