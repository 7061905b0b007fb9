"""`cadcpp chat`: a conversation in the terminal."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from cadcpp.cli.options import (
    MODEL_OPTIONS,
    SAMPLING_OPTIONS,
    answer,
    make_sampling,
    note,
    open_session,
    prefill_progress,
)
from cadcpp.errors import CadError, ContextFull

if TYPE_CHECKING:
    from cadcpp.chat import Conversation
    from cadcpp.config import SamplingConfig
    from cadcpp.report import Recorder
    from cadcpp.session import Session

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

        repl = Repl(session, Conversation(Template(session.model)), sampling, n_predict)
        if _is_terminal():
            with suppress(ImportError):
                import readline  # noqa: F401  gives input() its line editing
            note(f"{session.model.path.name}, loaded in {session.load_seconds:.1f} s. /help lists the commands.")
        repl.run()


class Repl:
    """Reads lines, answers them, and never dies of one bad line."""

    def __init__(
        self, session: "Session", conversation: "Conversation", sampling: "SamplingConfig", n_predict: int
    ) -> None:
        self._session, self._conversation, self._sampling = session, conversation, sampling
        self._n_predict = n_predict
        self._last: dict[str, Any] | None = None
        self._running = True

    def run(self) -> None:
        """Answer standard input line by line until it ends, or until /quit."""
        while self._running and (line := _read_line()) is not None:
            if line.startswith("/"):
                self._command(line.split()[0])
            elif line:
                self._turn(line)

    def _command(self, name: str) -> None:
        actions = {"/help": self._help, "/reset": self._reset, "/stats": self._stats, "/quit": self._quit}
        if name in actions:
            actions[name]()
        else:
            note(f"no command {name}: /help lists them")

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

    def _turn(self, question: str) -> None:
        from cadcpp.report import Recorder

        try:
            ids = self._conversation.ask(question)
        except CadError as error:
            self._conversation.undo()
            note(f"cadcpp: {error}")
            return
        recorder = Recorder(len(ids))
        remark = self._reply(ids, recorder)
        self._keep(recorder)
        if remark:
            note(remark)

    def _keep(self, recorder: "Recorder") -> None:
        """Make the reply, or the part of it that was written, a part of the conversation."""
        if not recorder.tokens and recorder.finish != "stop":
            self._conversation.undo()
            return
        if not recorder.text.endswith("\n"):
            answer("\n")
        self._conversation.answer(recorder.text, recorder.tokens)
        self._last = recorder.to_dict()

    def _reply(self, ids: list[int], recorder: "Recorder") -> str:
        """Show and record a reply, up to its end or Ctrl-C; returns what there is to say about its end."""
        try:
            with _interruptible() as stopped:
                self._show(ids, recorder, stopped)
        except _Stopped:
            return ""
        except ContextFull as error:
            return f"cadcpp: {error}; /reset starts over"
        except CadError as error:
            return f"cadcpp: {error}"
        return self._cut(len(recorder.tokens)) if recorder.finish == "length" else ""

    def _cut(self, n: int) -> str:
        if n >= self._n_predict:
            return f"[cut after {n} tokens: raise -n for longer replies]"
        return f"[cut after {n} tokens, the context is full: raise --ctx, or /reset]"

    def _show(self, ids: list[int], recorder: "Recorder", stopped: threading.Event) -> None:
        show = prefill_progress(recorder)

        def progress(done: int, total: int) -> None:
            show(done, total)
            _stop_if(stopped)

        stream = self._session.stream(ids, self._sampling, self._n_predict, stats=recorder.stats, progress=progress)
        with closing(stream):
            for chunk in stream:
                recorder.add(chunk)
                answer(chunk.text)
                _stop_if(stopped)


class _Stopped(Exception):
    """Ctrl-C, brought to a place where a reply may end."""


def _stop_if(stopped: threading.Event) -> None:
    if stopped.is_set():
        raise _Stopped


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _read_line() -> str | None:
    """The next line of input without its end, None when there is no more."""
    if not _is_terminal():
        line = sys.stdin.readline() if sys.stdin is not None else ""
        return line.strip() if line else None
    try:
        return _ask().strip()
    except EOFError:
        note("")
        return None
    except KeyboardInterrupt:
        note("")
        return ""


def _ask() -> str:
    if sys.stdout.isatty():
        return input("> ")
    click.echo("> ", nl=False, err=True)  # input() would write it to stdout, which holds nothing but answers
    return input()


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
