"""A command that gets Ctrl-C once, and then once more before every line of Python that it still runs."""

import signal
import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import cadcpp.cli.generate
from cadcpp.cli import ending, main
from tests.support.fakechat import FakeSession, Step, chunk, replace_session

take_signals = ending._take_signals


def flood() -> None:
    """Ctrl-C now, and in front of every line from here to the interpreter's end."""
    try:
        signal.raise_signal(signal.SIGINT)
    finally:  # now, since Python gives up tracing where that raises
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            frame.f_trace = _interrupt
            frame = frame.f_back
        sys.settrace(_interrupt)


def _interrupt(frame: FrameType, _event: str, _argument: object) -> Callable[..., Any]:
    if ending._take_signals is take_signals or frame.f_code is ending._ignore_interrupts.__code__:
        signal.raise_signal(signal.SIGINT)
    return _interrupt


def _reply() -> Iterable[Step]:
    yield chunk("one ")
    yield lambda _: flood()
    yield chunk("two")


def _answer(text: str) -> None:
    if text:
        flood()


if __name__ == "__main__":  # `python -m tests.support.flood usual|default chat|generate ...`
    how, *arguments = sys.argv[1:]
    if how == "default":  # Python's own way with Ctrl-C, which one in the last lines shows
        ending._take_signals = lambda: None
    replace_session(FakeSession([_reply()]), setattr)
    setattr(cadcpp.cli.generate, "answer", _answer)  # noqa: B010
    main(arguments)
