"""A conversation in the model's own chat template, written so that a new turn re-evaluates only itself."""

from collections.abc import Iterable, Sequence

from cadcpp.chat.template import Template
from cadcpp.chat.transcript import Message


class Conversation:
    """Messages and the token ids that stand for them."""

    def __init__(self, template: Template, system: str | None = None) -> None:
        self._template, self.system = template, system
        self.reset()

    def reset(self) -> None:
        """Forget everything but the system prompt."""
        self.messages = [Message("system", self.system)] if self.system else []
        self._text, self._ids = "", list[int]()
        self._before = list[tuple[int, str, list[int]]]()  # for every question: messages, text and ids before it

    def replay(self, messages: Iterable[Message]) -> "Conversation":
        """Another conversation, taken up again. Replies keep their tokens where these still spell their text."""
        messages = list(messages)
        other = Conversation(self._template, next((m.content for m in messages if m.role == "system"), None))
        for message in messages:
            if message.role == "user":
                other.ask(message.content)
            elif message.role == "assistant":
                kept = self._template.spells(message.tokens, message.content)
                tokens = message.tokens if kept else self._template.tokenize(message.content)
                other.answer(message.content, tokens, partial=message.partial)
        return other

    def with_system(self, system: str | None) -> "Conversation":
        """The same conversation under another system prompt."""
        rest = [message for message in self.messages if message.role != "system"]
        return self.replay([Message("system", system), *rest] if system else rest)

    def ask(self, question: str) -> list[int]:
        """Add a user's message; returns the prompt's token ids. Adds nothing if the template refuses it."""
        message = Message("user", question)
        text = self._template.render([{"role": m.role, "content": m.content} for m in (*self.messages, message)])
        self._before.append((len(self.messages), self._text, self._ids))
        # A reply's ids are kept as they were drawn: tokenizing its text again could give others,
        # and both caches would then have to evaluate the reply a second time.
        if self._text and text.startswith(self._text):
            self._ids = self._ids + self._template.tokenize(text[len(self._text) :])
        else:
            self._ids = self._template.tokenize(text)
        self._text = text
        self.messages.append(message)
        return list(self._ids)

    def answer(self, text: str, tokens: Sequence[int], *, partial: bool = False) -> None:
        """Add the assistant's reply, whole or cut short."""
        self.messages.append(Message("assistant", text, tuple(tokens), partial))
        self._text += text
        self._ids = [*self._ids, *tokens]

    def undo(self) -> str | None:
        """Take back the last question and what came of it; returns it, None if there is none."""
        if not self._before:
            return None
        n, self._text, self._ids = self._before.pop()
        question = self.messages[n].content
        del self.messages[n:]
        return question
