"""A text written a token at a time, for a caller who may stop, or go another way, after each of them."""

from collections.abc import Callable
from concurrent.futures import wait
from typing import TypeVar

from cadcpp.runtime.engine import Engine, OpenRound, Round, Work
from cadcpp.runtime.stages import Step, finish

T = TypeVar("T")


class TokenWriter:
    """Draws a token when it is asked for one, on the caller's thread, so that no draw is made in vain.

    A round stays open between two of its tokens. Whoever wants the context for something else ends the round of the
    writer first; it then goes on with a new round.
    """

    def __init__(self, engine: Engine, work: Work, on_round: Callable[[Round], None]) -> None:
        self._engine, self._work, self._on_round = engine, work, on_round
        self._open: OpenRound | None = None

    def next(self) -> Step[int]:
        """The next token, its round first if need be."""
        if self._open is None:
            self._open = yield from self._engine.open_round(self._work)
        try:
            token = self._open.walk.step()
        except BaseException:
            self._abandon(self._open)
            raise
        if self._open.walk.over:
            self.end_round()
        return token

    def end_round(self) -> None:
        """End the open round, if any: both caches are then those of the text so far."""
        opened, self._open = self._open, None
        if opened is not None:
            self._on_round(opened.close())

    def text(self) -> list[int]:
        """Tokens of the text so far."""
        self.end_round()
        return self._work.ids

    def _abandon(self, opened: OpenRound) -> None:
        self._open = None
        finish(self._engine.rollback)
        opened.stack.close()


def complete(step: Step[T]) -> T:
    """What a step gives, for a caller that blocks meanwhile."""
    try:
        while True:
            wait((next(step),))
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        step.close()
