"""The loop of a chat: reads lines, answers them, and never dies of one bad line."""

from collections.abc import Iterable

from cadcpp.cli.chat.commands import Leave, find
from cadcpp.cli.chat.live_chat import Talk
from cadcpp.cli.chat.reader import Lines, Typed, read_typed
from cadcpp.cli.terminal import note, told


class Repl:
    """The loop. Ctrl-C stops a reply or drops a line; the second in a row is a KeyboardInterrupt."""

    def __init__(self, talk: Talk, lines: Lines, typed: Iterable[Typed | None] = ()) -> None:
        """``typed`` was read from ``lines`` already."""
        self._talk, self._lines, self._typed = talk, lines, list(typed)

    def run(self) -> None:
        """Until the lines end, or /quit."""
        try:
            while self._step():
                if self._talk.interrupts.n > 1:
                    self._talk.interrupts.leave()
        except Leave:
            return

    def _step(self) -> bool:
        """Read a line and do what it says; False after the last."""
        interrupts = self._talk.interrupts
        try:
            typed = self._typed.pop(0) if self._typed else interrupts.reading(self._read)
        except KeyboardInterrupt:
            self._interrupted()
            return True
        if typed is None:
            return False
        interrupts.n = 0
        try:
            self._take(typed)
        except Leave:
            raise
        except Exception as error:
            note(told(error))
        return True

    def _read(self) -> Typed | None:
        return read_typed(self._lines, self._talk.editing or "")

    def _interrupted(self) -> None:
        """Drop what was being typed; whoever pipes lines in leaves."""
        self._talk.editing = None
        self._talk.interrupts.n += 1 if self._lines.interactive else 2
        if self._talk.interrupts.n == 1:
            note("Ctrl-C again leaves, and so does /quit")

    def _take(self, typed: Typed) -> None:
        found = None if typed.verbatim else find(typed.text, self._lines.interactive)
        editing, self._talk.editing = self._talk.editing, None
        if found is not None:
            command, rest = found
            if said := command.run(self._talk, rest):
                note(said)
        elif typed.text:
            self._talk.ask(typed.text, instead=editing is not None)
