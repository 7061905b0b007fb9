"""The terminal's echo: what is typed while a reply is written is kept for the next line and not shown in the reply."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

if sys.platform != "win32":
    import termios

_Attributes = list[Any]  # as termios has them
_LOCAL = 3  # among them, the flags of line editing and echo


@contextmanager
def silent_keyboard() -> Iterator[None]:
    """Inside, what is typed shows in a line editor only; elsewhere the terminal keeps it, as always, to be read later.

    Outside, and while the program is suspended, the terminal is as it was. Where there is no termios nothing happens.
    """
    usual = _attributes()
    if usual is None:
        yield
        return
    try:
        _set(_with_echo(usual, False))
        with _Suspension(usual):
            yield
    finally:
        _set(usual)


class _Suspension:
    """Inside, the shell has the terminal with ``usual`` attributes while the program is suspended (Ctrl-Z)."""

    def __init__(self, usual: _Attributes) -> None:
        self._usual = usual
        self._before: _Attributes | None = None  # what was set when the program was suspended

    def __enter__(self) -> None:
        self._handles = signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL
        if self._handles:
            self._at_continue = signal.signal(signal.SIGCONT, self._resume)
            signal.signal(signal.SIGTSTP, self._suspend)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handles:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.signal(signal.SIGCONT, self._at_continue)

    def _suspend(self, number: int, _frame: FrameType | None) -> None:
        self._before = _attributes()
        _set(self._usual)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)  # here the program stands still
        signal.signal(number, self._suspend)
        self._resume()

    def _resume(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """In the foreground again, be it some time after going on in the background."""
        if self._before is not None and _set(self._before):
            self._before = None


@contextmanager
def usual_keyboard() -> Iterator[None]:
    """Inside, what is typed shows, for another program that uses the terminal."""
    before = _attributes()
    try:
        if before is not None:
            _set(_with_echo(before, True))
        yield
    finally:
        _set(before)


if sys.platform == "win32":

    def _attributes() -> _Attributes | None:
        return None

    def _with_echo(attributes: _Attributes, echo: bool) -> _Attributes:
        return attributes

    def _set(attributes: _Attributes | None) -> bool:
        return True

else:

    def _attributes() -> _Attributes | None:
        try:
            return termios.tcgetattr(sys.stdin.fileno())
        except (termios.error, OSError, ValueError):  # no terminal, or none any more
            return None

    def _with_echo(attributes: _Attributes, echo: bool) -> _Attributes:
        flags = attributes[_LOCAL] & ~termios.ECHO | (termios.ECHO if echo else 0)
        return [*attributes[:_LOCAL], flags, *attributes[_LOCAL + 1 :]]

    def _set(attributes: _Attributes | None) -> bool:
        """Change the terminal, if it is ours: it would suspend a program in the background that tries."""
        if attributes is None or _is_in_background():
            return False
        with suppress(termios.error, OSError, ValueError):
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, attributes)
        return True

    def _is_in_background() -> bool:
        try:
            return os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp()
        except (OSError, ValueError):  # no terminal that has a foreground
            return False
