"""How the program ends: by itself or by a signal, in order, with one exit code.

Ctrl-C is a KeyboardInterrupt once. From then on, and once the program has done its work, further ones do nothing, so
that what is being closed is closed and the exit code stays what it is.
"""

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130  # what a shell reports of a command that SIGINT ended

_ending = False


def run(program: Callable[[], object]) -> NoReturn:
    """Run a program to its SystemExit and end the process so; to be called once, by the main thread.

    SIGTERM and a terminal that hangs up end it as Ctrl-C does; a second one of them ends the process at once.
    """
    _take_signals()
    try:
        code = _exit_code(program)
        begin_ending()
    except KeyboardInterrupt:  # between two lines of those above
        begin_ending()
        code = INTERRUPTED
    _ignore_interrupts()
    sys.exit(code)


def begin_ending() -> None:
    """From now on Ctrl-C does nothing, wherever `run`'s handler is in place."""
    global _ending
    _ending = True


def _take_signals() -> None:
    """Handle what nobody has decided about: a job in the background, or of nohup, has signals that are ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    for name in ("SIGTERM", "SIGHUP"):  # of which Windows has one
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _leave)


def _exit_code(program: Callable[[], object]) -> int | str | None:
    try:
        program()
    except SystemExit as end:
        return end.code
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    if not _ending:
        begin_ending()
        raise KeyboardInterrupt


def _leave(number: int, _frame: FrameType | None) -> None:
    begin_ending()
    signal.signal(number, signal.SIG_DFL)
    sys.exit(128 + number)


def _ignore_interrupts() -> None:
    """For the interpreter's own end, at which it gives handlers in Python back to the system, whose way is to kill."""
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
