"""How far something is, on stderr: bars, a countdown, and notes of long waits."""

import math
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import click

from cadcpp.cli.terminal import is_terminal, note

if TYPE_CHECKING:
    from cadcpp.runtime.generation_record import GenerationRecord
    from cadcpp.telemetry.progress import Progress


_CELLS = 20  # of a bar
_TICK_S = 0.2
_LONG_S = 5.0  # of waiting for a disk; usual passes wait less between two layers


class Bar:
    """A line on stderr that says how far something is and how long it will take; on a terminal only."""

    def __init__(self, label: str) -> None:
        self._label, self._shown = label, False
        self._first: tuple[float, float] | None = None  # when the first share was told, and which

    def tell(self, share: float) -> None:
        """Show that ``share`` of the whole is done."""
        if not is_terminal(sys.stderr):
            return
        now = time.monotonic()
        self._first = self._first or (now, share)
        speed = (share - self._first[1]) / max(now - self._first[0], 1e-9)
        left = (1 - share) / speed if speed > 0 else None
        line = bar_line(self._label, share, left, shutil.get_terminal_size().columns - 1)
        click.echo(f"\r{line}\033[K", err=True, nl=False)
        self._shown = True

    def clear(self) -> None:
        """Leave nothing of it on the screen."""
        if self._shown:
            click.echo("\r\033[K", err=True, nl=False)
        self._shown = False


def bar_line(label: str, share: float, seconds_left: float | None, width: int) -> str:
    """A bar of at most ``width`` letters; without the drawing where that is too long."""
    share = min(max(share, 0.0), 1.0)
    left = "" if seconds_left is None else f", {format_seconds(seconds_left)} left"
    filled = int(share * _CELLS)
    line = f"{label} [{'#' * filled}{'.' * (_CELLS - filled)}] {share:.0%}{left}"
    return line if len(line) <= width else f"{label} {share:.0%}{left}"[:width]


def format_seconds(seconds: float) -> str:
    """``4 s``, ``2 min 10 s``, ``3 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def prefill_progress(recorder: "GenerationRecord") -> Iterator["Progress"]:
    """Tells how much of what is new in the prompt is evaluated, until the answer begins."""
    bar, start = Bar("reading the prompt"), list[int]()

    def show(done: int, total: int) -> None:
        if not start:
            start.append(done)
        if done < total and not recorder.tokens:
            bar.tell((done - start[0]) / (total - start[0]))
        else:
            bar.clear()

    try:
        yield show
    finally:
        bar.clear()


@contextmanager
def stall_note(waiting_s: Callable[[], float]) -> Iterator[None]:
    """Inside, a line on a terminal says so when a disk keeps the reply waiting for long."""
    told = False

    def look() -> None:
        nonlocal told
        long = waiting_s() > _LONG_S
        if long and not told:
            note("\n[waiting for the disk; Ctrl-C ends the reply]")
        told = long

    with _meanwhile(look) if is_terminal(sys.stderr) else nullcontext():
        yield


@contextmanager
def loading(n_bytes: int, before: int) -> Iterator[None]:
    """Inside, a bar follows how much of models of ``n_bytes`` is resident beside what was ``before``."""
    from cadcpp.system.memory_limits import resident_bytes

    bar = Bar("loading")
    try:
        with _meanwhile(lambda: bar.tell((resident_bytes() - before) / max(n_bytes, 1))):
            yield
    finally:
        bar.clear()


@contextmanager
def _meanwhile(look: Callable[[], None]) -> Iterator[None]:
    """Inside, ``look`` is called now and then."""
    over = threading.Event()

    def follow() -> None:
        while not over.wait(_TICK_S):
            look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


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
