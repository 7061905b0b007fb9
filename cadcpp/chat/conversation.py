"""A conversation in the model's own chat template."""

from collections.abc import Iterable, Sequence

from cadcpp.chat.template import Template
from cadcpp.chat.transcript import Message


class Conversation:
    """Messages, and the token ids that stand for them.

    The ids are always those of the whole text, tokenized at once: what follows a reply has other tokens alone than
    behind it. A reply that was drawn in other tokens than its text has is so read again, from the first such token on.
    """

    def __init__(self, template: Template, system: str | None = None) -> None:
        self._template, self.system = template, system
        self.reset()

    def reset(self) -> None:
        """Forget everything but the system prompt."""
        self.messages = [Message("system", self.system)] if self.system else []

    def replay(self, messages: Iterable[Message]) -> "Conversation":
        """Another conversation, taken up again. Raises ConfigError if the template refuses it."""
        messages = list(messages)
        other = Conversation(self._template, next((m.content for m in messages if m.role == "system"), None))
        other.messages += [message for message in messages if message.role != "system"]
        if (last := other._last_question()) is not None:
            other._render(other.messages[: last + 1])
        return other

    def with_system(self, system: str | None) -> "Conversation":
        """The same conversation under another system prompt."""
        rest = [message for message in self.messages if message.role != "system"]
        return self.replay([Message("system", system), *rest] if system else rest)

    def with_template(self, template: Template) -> "Conversation":
        """The same conversation for a model that was loaded again."""
        other = Conversation(template, self.system)
        other.messages = [*self.messages]
        return other

    def ask(self, question: str) -> list[int]:
        """Add a user's message; returns the prompt's token ids. Adds nothing if the template refuses it."""
        messages = [*self.messages, Message("user", question)]
        ids = self._template.tokenize(self._render(messages))
        self.messages = messages
        return ids

    def answer(self, text: str, tokens: Sequence[int], *, partial: bool = False) -> None:
        """Add the assistant's reply, whole or cut short, and the tokens in which it was drawn."""
        self.messages.append(Message("assistant", text, tuple(tokens), partial))

    def undo(self) -> str | None:
        """Take back the last question and what came of it; returns it, None if there is none."""
        if (last := self._last_question()) is None:
            return None
        question = self.messages[last].content
        del self.messages[last:]
        return question

    def _last_question(self) -> int | None:
        return next((i for i in reversed(range(len(self.messages))) if self.messages[i].role == "user"), None)

    def _render(self, messages: Iterable[Message]) -> str:
        return self._template.render([{"role": m.role, "content": m.content} for m in messages])
