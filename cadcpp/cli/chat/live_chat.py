"""A chat that is under way: asks the session, shows its replies, and keeps both on disk as they come."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cadcpp.chat.transcript import Transcript
from cadcpp.cli.chat.colours import Painter
from cadcpp.cli.chat.footer import footer
from cadcpp.cli.chat.interrupt import Interrupts, Stopped
from cadcpp.cli.chat.settings import Settings
from cadcpp.cli.chat.state_dir import cache_of
from cadcpp.cli.progress import prefill_progress, stall_note
from cadcpp.cli.terminal import answer, note, told
from cadcpp.errors import ContextFull, WorkerError
from cadcpp.runtime.generation_record import GenerationRecord

if TYPE_CHECKING:
    from cadcpp.chat.conversation import Conversation
    from cadcpp.runtime.round import Round
    from cadcpp.runtime.session import Session


class Talk:
    """What commands act on."""

    def __init__(
        self,
        session: "Session",
        conversation: "Conversation",
        settings: Settings,
        about: Callable[["Session"], str],
        new_chat: Callable[[], Path | None],
        reopen: Callable[[], "Session"],
    ) -> None:
        """``new_chat`` names a file for a transcript, or None where chats are not kept.

        ``reopen`` gives another session with the workers that are there then.
        """
        self.session, self.settings, self._about, self._new_chat = session, settings, about, new_chat
        self._reopen = reopen
        self.record: dict[str, Any] | None = None  # of the last reply
        self.round: Round | None = None  # its last
        self.attached: list[str] = []  # goes with the next question
        self.editing: str | None = None  # the question that the next one takes the place of
        self.interrupts = Interrupts()
        self.begin(conversation)

    def save_kv_cache(self) -> None:
        """Put what the verifier has evaluated beside the transcript, in the place of every earlier one."""
        from cadcpp.kv.saved_cache import save_cache

        if self._transcript is None or not self._transcript.path.exists():
            return
        path = cache_of(self._transcript.path)
        try:
            for old in path.parent.glob(f"*{path.suffix}"):
                old.unlink()
            save_cache(self.session.engine.verifier.cache, path)
        except OSError as error:
            note(f"cadcpp: cannot write {path}: {error.strerror}; the next chat will read this one again")
        except WorkerError as error:
            note(f"cadcpp: {error}; the next chat will read this one again")

    def begin(self, conversation: "Conversation") -> None:
        """Go on with another conversation, in a transcript of its own."""
        self.conversation = conversation
        path = self._new_chat()
        self._transcript: Transcript | None = Transcript(path) if path is not None else None

    def about(self) -> str:
        """What runs."""
        return self._about(self.session)

    def reconnect(self) -> None:
        """Load the models again, with the workers that are there now; the conversation is read again."""
        from cadcpp.chat.template import Template

        self.session.close()
        self.session = self._reopen()
        self.conversation = self.conversation.with_template(Template(self.session.model))

    def change(self, conversation: "Conversation") -> None:
        """Take another version of this conversation."""
        self.conversation = conversation
        self._keep(lambda transcript: transcript.save(conversation.messages))

    def ask(self, question: str, *, instead: bool = False) -> None:
        """A turn, ``instead`` of the last one or after it. If nothing comes of it, all is as it was before."""
        before = list(self.conversation.messages)
        if instead:
            self.conversation.undo()
        try:
            ids = self.conversation.ask("\n\n".join([*self.attached, question]))
        except Exception as error:
            self.conversation = self.conversation.replay(before)
            note(told(error))
            return
        self.attached.clear()
        self.change(self.conversation)
        if not self._reply(ids):
            self.change(self.conversation.replay(before))

    def _reply(self, ids: list[int]) -> bool:
        """Show and keep a reply, or what there is of it until Ctrl-C or an error; False if there is nothing."""
        recorder, ended, remark = GenerationRecord(len(ids)), False, ""
        try:
            ended = self._show(ids, recorder)
            remark = self._cut(recorder)
        except Stopped:
            pass
        except Exception as error:
            remark = told(error) + _remedy(error)
        something = bool(recorder.tokens) or ended
        if something:
            self._finish(recorder, ended)
        if remark:
            note(remark)
        return something

    def _show(self, ids: list[int], recorder: GenerationRecord) -> bool:
        """Whether the reply came to its end."""
        settings = self.settings
        with (
            Painter(self.session.model.piece, settings.show) as painter,
            prefill_progress(recorder) as progress,
            stall_note(lambda: self.session.pager.state().waiting_seconds),
            closing(
                self.session.stream(ids, settings.sampling, settings.n, stats=recorder.stats, progress=progress)
            ) as stream,
        ):
            for chunk in self.interrupts.guard(stream):
                recorder.add(chunk)
                self.round = chunk.round
                self._keep_part(chunk.text, chunk.tokens, chunk.finish is not None)
                painter.paint(chunk)
                if chunk.finish:
                    return True
        return False

    def _keep_part(self, text: str, tokens: list[int], last: bool) -> None:
        self._keep(lambda transcript: transcript.add(text, tokens, last=last))

    def _finish(self, recorder: GenerationRecord, ended: bool) -> None:
        if not recorder.text.endswith("\n"):
            answer("\n")
        self.conversation.answer(recorder.text, recorder.tokens, partial=not ended)
        self.change(self.conversation)
        self.record = recorder.to_dict()
        if self.settings.footer:
            note(footer(self.record, self.session.resident_share), dim=True)

    def _cut(self, recorder: GenerationRecord) -> str:
        """What there is to say about a reply that came to its end."""
        n = len(recorder.tokens)
        if recorder.finish != "length":
            return ""
        if n >= self.settings.n:
            return f"[cut after {n} tokens: /set n {2 * n} allows longer replies]"
        return f"[cut after {n} tokens, the context is full: raise --ctx, or /reset]"

    def _keep(self, write: Callable[[Transcript], None]) -> None:
        """Write to the transcript; a disk that is full ends the transcript and not the chat."""
        if self._transcript is None:
            return
        try:
            write(self._transcript)
        except OSError as error:
            note(f"cadcpp: cannot write {self._transcript.path}: {error.strerror}; this chat is no longer kept")
            self._transcript = None


def _remedy(error: Exception) -> str:
    if isinstance(error, ContextFull):
        return "; /reset starts over"
    return "; /reconnect goes on with the workers that are there" if isinstance(error, WorkerError) else ""


def resumed(talk: Talk, path: Path) -> str:
    """What there is to say about a conversation that was taken up again."""
    messages = talk.conversation.messages
    n = sum(message.role == "user" for message in messages)
    text = f"goes on with {path}, {n} question{'' if n == 1 else 's'}"
    if messages and messages[-1].partial:
        text += "; the last reply was cut off: /regen writes it anew"
    return text
