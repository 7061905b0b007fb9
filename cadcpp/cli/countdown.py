"""How far a long count is, at what rate, and how long the rest takes."""

import math
import sys
import time
from collections.abc import Callable

import click


class Countdown:
    """A line that updates itself on a terminal, a plain line in every ten seconds elsewhere."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._clock = what, clock
        self._terminal = sys.stderr.isatty()
        self._first: tuple[float, int] | None = None  # what an earlier run has done says nothing about this one's rate
        self._shown = -math.inf

    def __call__(self, done: int, total: int) -> None:
        now = self._clock()
        self._first = self._first or (now, done)
        if done < total and now - self._shown < (0.2 if self._terminal else 10):
            return
        self._shown = now
        line = f"{self._what} {done} of {total} tokens{self._rest(now, done, total)}"
        end = "\n" if done >= total or not self._terminal else ""
        click.echo(("\r\033[K" if self._terminal else "") + line + end, err=True, nl=False)

    def _rest(self, now: float, done: int, total: int) -> str:
        start, before = self._first or (now, done)
        if done == before or now <= start:
            return ""
        rate = (done - before) / (now - start)
        minutes, seconds = divmod(round((total - done) / rate), 60)
        return f", {rate:.0f} a second, {minutes}:{seconds:02} left"
