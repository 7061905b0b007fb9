"""What commands show, and where: answers on stdout, everything else on stderr."""

import logging
import os
import sys
from typing import TextIO

import click

from cadcpp.errors import CadError

logger = logging.getLogger(__name__)

# Control characters become pictures of themselves: neither a model nor a file may steer the terminal.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_PICTURES |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def printable(text: str) -> str:
    """Text that only shows, whatever it holds."""
    return text.translate(_PICTURES)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody looks at a stream, or types into it; a closed one is None."""
    return stream is not None and stream.isatty()


def columns(stream: TextIO) -> int:
    """How wide a terminal is at the moment; 0 if it does not tell."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except OSError:
        return 0


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


def told(error: Exception) -> str:
    """An error that something goes on after, in one line. Raises it again if nobody could read on."""
    if isinstance(error, BrokenPipeError | click.ClickException | click.Abort | click.exceptions.Exit):
        raise error
    logger.debug("what went wrong", exc_info=error)
    what = str(error) if isinstance(error, CadError) else f"{type(error).__name__}: {error}"
    return f"cadcpp: {' '.join(what.split())}"


def has_colours(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that may show colours (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
