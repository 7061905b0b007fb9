"""A text written a token at a time, for a caller who may stop, or go another way, after each of them."""

from collections.abc import Callable
from typing import TypeVar

from cadcpp.runtime.engine import Engine, Generation
from cadcpp.runtime.round import OpenRound, Round
from cadcpp.runtime.stages import Step, finish, until_done

T = TypeVar("T")


class TokenWriter:
    """Draws a token when it is asked for one, on the caller's thread, so that no draw is made in vain.

    A round stays open between two of its tokens. Whoever wants the context for something else ends the
    round first; the writer then goes on with a new one.
    """

    def __init__(self, engine: Engine, generation: Generation, on_round: Callable[[Round], None]) -> None:
        self._engine, self._generation, self._on_round = engine, generation, on_round
        self._open: OpenRound | None = None

    def next(self) -> Step[int]:
        """The next token, its round first if need be."""
        if self._open is None:
            self._open = yield from self._engine.open_round(self._generation)
        try:
            token = self._open.step()
        except BaseException:
            self._abandon(self._open)
            raise
        if self._open.over:
            self.end_round()
        return token

    def end_round(self) -> None:
        """End the open round, if any: both caches are then those of the text so far."""
        opened, self._open = self._open, None
        if opened is not None:
            self._on_round(opened.finish())

    def _abandon(self, opened: OpenRound) -> None:
        self._open = None
        with opened:
            finish(self._engine.rollback)


def complete(step: Step[T]) -> T:
    """What a step gives, for a caller that blocks meanwhile."""
    try:
        while True:
            until_done(next(step))
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        step.close()
