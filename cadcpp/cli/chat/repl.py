"""Reads lines, answers them, and never dies of one bad line."""

from cadcpp.cli.chat.commands import Leave, find
from cadcpp.cli.chat.live_chat import Talk
from cadcpp.cli.chat.reader import Lines, Typed, read_typed
from cadcpp.cli.terminal import note
from cadcpp.errors import CadError


class Repl:
    """The loop. Ctrl-C stops a reply or drops a line; the second in a row is a KeyboardInterrupt."""

    def __init__(self, talk: Talk, lines: Lines) -> None:
        self._talk, self._lines = talk, lines

    def run(self) -> None:
        """Until the lines end, or /quit."""
        while True:
            try:
                typed = read_typed(self._lines, self._talk.editing or "")
                if typed is None:
                    return
                self._talk.n_interrupts = 0
                self._take(typed)
            except KeyboardInterrupt:
                self._interrupted()
            except Leave:
                return
            except CadError as error:
                note(f"cadcpp: {error}")

    def _interrupted(self) -> None:
        self._talk.editing = None
        self._talk.n_interrupts += 1
        if self._talk.n_interrupts > 1 or not self._lines.interactive:
            raise KeyboardInterrupt
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
