"""`cadcpp chat`: a conversation in the terminal."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from cadcpp.cli.options import (
    MODEL_OPTIONS,
    SAMPLING_OPTIONS,
    make_sampling,
    note,
    open_session,
    prefill_progress,
)
from cadcpp.errors import CadError, ContextFull

HELP = """/help    this list
/reset   forget the conversation
/stats   figures of the last reply
/quit    leave (so does Ctrl-D)
Ctrl-C   stop the reply"""


@click.command("chat")
@MODEL_OPTIONS
@SAMPLING_OPTIONS
def command(
    n_predict: int,
    temp: float,
    top_k: int,
    top_p: float,
    min_p: float,
    repeat_penalty: float,
    seed: int | None,
    **model_options: Any,
) -> None:
    """Talk with a model. Type /help for commands."""
    sampling = make_sampling(temp, top_k, top_p, min_p, repeat_penalty, seed)
    with open_session(n_predict=n_predict, **model_options) as session:
        from cadcpp.chat import Conversation
        from cadcpp.native.template import Template

        repl = _Repl(session, Conversation(Template(session.model)), sampling, n_predict)
        if sys.stdin.isatty():
            note(f"{session.model.path.name}, loaded in {session.load_seconds:.1f} s. /help lists the commands.")
        repl.run()


class _Repl:
    """Reads lines, answers them, and never dies of one bad line."""

    def __init__(self, session: Any, conversation: Any, sampling: Any, n: int) -> None:
        self._session, self._conversation, self._sampling, self._n = session, conversation, sampling, n
        self._last: dict[str, Any] | None = None
        self._running = True

    def run(self) -> None:
        while self._running and (line := _read_line()) is not None:
            if line.startswith("/"):
                self._command(line)
            elif line:
                self._answer(line)

    def _command(self, line: str) -> None:
        actions = {"/help": self._help, "/reset": self._reset, "/stats": self._stats, "/quit": self._quit}
        action = actions.get(line.split()[0])
        if action is None:
            note(f"no command {line.split()[0]}: /help lists them")
        else:
            action()

    def _help(self) -> None:
        note(HELP)

    def _reset(self) -> None:
        self._conversation.reset()
        note("forgotten")

    def _stats(self) -> None:
        if self._last is None:
            note("no reply yet")
            return
        values = {k: v for k, v in self._last.items() if k not in ("text", "tokens", "stats")} | self._last["stats"]
        for name, value in values.items():
            note(f"{name:24} {round(value, 3) if isinstance(value, float) else value}")

    def _quit(self) -> None:
        self._running = False

    def _answer(self, question: str) -> None:
        try:
            ids = self._conversation.ask(question)
        except CadError as error:
            self._conversation.undo()
            note(f"cadcpp: {error}")
            return
        self._reply(ids)

    def _reply(self, ids: list[int]) -> None:
        from cadcpp.report import Recorder

        recorder = Recorder(len(ids))
        try:
            with _interruptible() as stopped:
                chunks = self._session.stream(
                    ids, self._sampling, self._n, stats=recorder.stats, progress=prefill_progress
                )
                for chunk in chunks:
                    recorder.add(chunk)
                    click.echo(chunk.text, nl=False)
                    if stopped.is_set():
                        chunks.close()
                        break
        except ContextFull as error:
            note(f"cadcpp: {error}; /reset starts over")
            self._conversation.undo()
            return
        except CadError as error:
            note(f"cadcpp: {error}")
        click.echo()
        self._conversation.answer(recorder.text, recorder.tokens)
        self._last = recorder.to_dict()


def _read_line() -> str | None:
    """The next line of input without its end, None when there is no more."""
    try:
        if sys.stdin.isatty():
            return input("> ").strip()
        line = sys.stdin.readline()
        return line.strip() if line else None
    except EOFError:
        note("")
        return None
    except KeyboardInterrupt:
        note("")
        return ""


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Inside, Ctrl-C sets the event and nothing else, so that no round is torn apart."""
    stopped = threading.Event()

    def on_interrupt(_signal: int, _frame: FrameType | None) -> None:
        stopped.set()

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, previous)
