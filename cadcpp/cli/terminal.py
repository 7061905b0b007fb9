"""What commands show, and where: answers on stdout, everything else on stderr."""

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from cadcpp.kv.cache import Progress
    from cadcpp.runtime.generation_record import Recorder

_CELLS = 20  # of a bar
_TICK_S = 0.2
_LONG_S = 5.0  # of waiting for a disk; usual passes wait less between two layers
# Control characters become pictures of themselves: neither a model nor a file may steer the terminal.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_PICTURES |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def printable(text: str) -> str:
    """Text that only shows, whatever it holds."""
    return text.translate(_PICTURES)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody looks at a stream, or types into it; a closed one is None."""
    return stream is not None and stream.isatty()


def answer(text: str, colour: str | None = None) -> None:
    """A piece of the answer, on stdout and nothing else with it; in a colour on a terminal only."""
    if is_terminal(sys.stdout):
        text = printable(text)
        text = click.style(text, fg=colour) if colour and text else text
    try:
        click.echo(text, nl=False, color=True)  # True: a pipe gets what the model wrote, to the letter
    except BrokenPipeError:
        raise  # click ends quietly: whoever read has read enough
    except OSError as error:
        # What waits in the buffer cannot be written either; Python would try at exit and print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.ClickException(f"cannot write to standard output: {error.strerror}; make room there") from None


def say(what: object) -> None:
    """A line that was asked for, on stdout."""
    answer(f"{what}\n")


def note(message: str, *, dim: bool = False) -> None:
    """A line for people, on stderr."""
    text = printable(message)
    click.echo(click.style(text, dim=True) if dim and has_colours(sys.stderr) else text, err=True)


def has_colours(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that may show colours (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


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
def prefill_progress(recorder: "Recorder") -> Iterator["Progress"]:
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
def loading(n_bytes: int, resident: Callable[[], int]) -> Iterator[None]:
    """Inside, where models of ``n_bytes`` are loaded, a bar follows how much more of them is ``resident``."""
    bar, before = Bar("loading"), resident()
    try:
        with _meanwhile(lambda: bar.tell((resident() - before) / max(n_bytes, 1))):
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
