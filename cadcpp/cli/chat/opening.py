"""A chat before its session is there: it says what will run, and the first message is typed while models are loaded."""

import signal
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cadcpp.cli.chat.banner import Pair, screen
from cadcpp.cli.chat.keyboard import silent_keyboard
from cadcpp.cli.chat.reader import Lines, Pipe, Typed, read_typed
from cadcpp.cli.chat.state_dir import Places
from cadcpp.cli.progress import loading
from cadcpp.cli.terminal import note

if TYPE_CHECKING:
    from cadcpp.config import SessionConfig
    from cadcpp.residency.memory_plan import Plan
    from cadcpp.runtime.session import Session


class Opening:
    """What goes on between a command and its session."""

    def __init__(self, pair: Pair, places: Places, *, interactive: bool, reads: bool) -> None:
        """``reads`` is whether the first message may be typed meanwhile."""
        self._pair, self._places, self._interactive, self._reads = pair, places, interactive, reads
        self._planned: Future[tuple[int, int]] = Future()  # bytes that are going to be read, and that are there
        self.typed: list[Typed | None] = []  # what was read so far

    @cached_property
    def lines(self) -> Lines:
        """Where messages come from."""
        if not self._interactive:
            return Pipe()
        from cadcpp.cli.chat.commands import COMMANDS
        from cadcpp.cli.chat.editor import Editor

        note("/help lists the commands.")
        return Editor(self._places.history, [command.name for command in COMMANDS])

    def announce(self, plan: "Plan", config: "SessionConfig") -> None:
        """Say what will run, right before it is loaded; not on the thread that reads."""
        from cadcpp.system.memory_limits import resident_bytes

        if self._interactive:
            note(screen(plan, config, self._pair))
        weights = 0 if plan.streams else plan.layout.pinned_bytes + plan.layout.expert_bytes
        self._planned.set_result((plan.draft + weights, resident_bytes()))

    def meanwhile(self, session: "Future[Session]") -> None:
        """Read the first message while a session is loaded; a bar follows what is left of that then."""
        either: list[Future[Any]] = [self._planned, session]
        wait(either, return_when=FIRST_COMPLETED)
        if not self._interactive or not self._planned.done():
            return
        if self._reads:
            self._read(session)
        with loading(*self._planned.result()) if not session.done() else nullcontext():
            wait((session,))

    def _read(self, session: "Future[Session]") -> None:
        lines, handler = self.lines, signal.getsignal(signal.SIGINT)
        session.add_done_callback(lambda done: lines.abandon() if done.exception() else None)
        try:
            with silent_keyboard():
                self.typed.append(read_typed(lines))
        finally:
            signal.signal(signal.SIGINT, handler)  # a line editor may leave Python's own behind
