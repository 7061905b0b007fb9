"""A conversation in the model's own chat template, written so that a new turn re-evaluates only itself."""

from cadcpp.native.template import Template


class Conversation:
    """Messages and the token ids that stand for them."""

    def __init__(self, template: Template, system: str | None = None) -> None:
        self._template = template
        self._system = system
        self.reset()

    def reset(self) -> None:
        """Forget everything but the system prompt."""
        self.messages: list[dict[str, str]] = []
        if self._system:
            self.messages.append({"role": "system", "content": self._system})
        self._text, self._ids = "", list[int]()
        self._before = self._text, self._ids

    def ask(self, question: str) -> list[int]:
        """Add a user's message; returns the prompt's token ids."""
        self.messages.append({"role": "user", "content": question})
        self._before = self._text, list(self._ids)
        text = self._template.render(self.messages)
        # A reply's ids are kept as they were drawn: tokenizing its text again could give others,
        # and both caches would then have to evaluate the reply a second time.
        if self._text and text.startswith(self._text):
            self._ids += self._template.tokenize(text[len(self._text) :])
        else:
            self._ids = self._template.tokenize(text)
        self._text = text
        return list(self._ids)

    def answer(self, text: str, tokens: list[int]) -> None:
        """Add the assistant's reply, whole or cut short."""
        self.messages.append({"role": "assistant", "content": text})
        self._text += text
        self._ids += tokens

    def undo(self) -> None:
        """Take back the last question, when no answer came of it."""
        self.messages.pop()
        self._text, self._ids = self._before
