"""How the programs of the bench end."""

import os
import select
import sys
from collections.abc import Callable


def run_program(main: Callable[[], object]) -> None:
    """Run a program that prints; one whose reader has read enough, as `head` has, ends without a word."""
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if _is_read():
            raise  # another pipe broke
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what still waits in the buffer
        sys.exit(1)


def _is_read() -> bool:
    """Whether there is still somebody at the other end of standard output."""
    poll = select.poll()
    poll.register(sys.stdout, 0)  # errors are told in any case
    return not poll.poll(0)
