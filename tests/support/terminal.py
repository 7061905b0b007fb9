"""A pseudo terminal with a command in it, and the screen that somebody would see."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence

import pyte

from tests.support.command import ROOT

_LINES = 500  # more than any test shows, so that nothing scrolls away


class Terminal:
    """Types into a command and reads what it shows; with ``stdout`` the command's output goes to a file."""

    def __init__(
        self, command: Sequence[object], *, term: str = "xterm", stdout: str = "$0", **environment: str
    ) -> None:
        self._fd, self._inner = pty.openpty()  # the inner end stays open here, or reading fails until sh opens it
        self._set_size(80)
        self._screen = pyte.Screen(80, _LINES)
        self._stream = pyte.ByteStream(self._screen)
        self._seen = 0  # lines
        self.raw = b""  # all that came
        # The first terminal that a new session opens is the one whose Ctrl-C it gets.
        script = f'exec "$@" <"$0" >"{stdout}" 2>"$0"'
        self._process = subprocess.Popen(
            ["sh", "-c", script, os.ttyname(self._inner), *map(str, command)],
            cwd=ROOT,
            env={**os.environ, "TERM": term, "PROMPT_TOOLKIT_NO_CPR": "1", **environment},
            start_new_session=True,
        )

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def press_until_it_ends(self, key: str) -> None:
        """A key again and again; the second time at the earliest when the first was taken in."""
        while self._process.poll() is None:
            self.type(key)
            self._read()
            time.sleep(0.2)

    def resize(self, columns: int) -> None:
        self._set_size(columns)
        self._screen.resize(_LINES, columns)
        self._process.send_signal(signal.SIGWINCH)

    def _set_size(self, columns: int) -> None:
        fcntl.ioctl(self._inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def read_until(self, end: str, at_least: int = 0) -> str:
        """What is on the screen up to the cursor, from where it was the last time, once that ends in ``end``.

        ``end`` comes after at least so many letters. A prompt's blank is the cursor's place, so it does not count.
        """
        stop = time.monotonic() + 100
        while self._read() or len(text := self._text()) < at_least or not text.endswith(end.rstrip(" ")):
            assert time.monotonic() < stop, f"no {end!r} in {self._text()!r}"
        self._seen = self._screen.cursor.y
        return text

    def read_all(self) -> str:
        """All that the command sends until it ends."""
        while self._process.poll() is None or self._read():
            self._read()
        return self.raw.decode()

    def _read(self) -> bool:
        """Take what comes; False once nothing does."""
        if not select.select([self._fd], [], [], 0.005)[0]:
            return False
        data = os.read(self._fd, 1024)
        self.raw += data
        self._stream.feed(data)
        return True

    def _text(self) -> str:
        cells, (y, x) = self._screen.buffer, (self._screen.cursor.y, self._screen.cursor.x)
        lines = [
            "".join(cells[row][column].data for column in range(self._screen.columns)) for row in range(self._seen, y)
        ]
        return "\n".join(line.rstrip() for line in [*lines, "".join(cells[y][column].data for column in range(x))])

    def wait(self) -> int:
        return self._process.wait(60)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)
        os.close(self._inner)
