"""The model's own chat template, rendered by llama-cpp-python's sandboxed Jinja."""

from typing import Any

from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from cadcpp.errors import ConfigError, ModelError
from cadcpp.native.model import Model


class Template:
    """The model's own Jinja chat template."""

    def __init__(self, model: Model) -> None:
        source = model.chat_template
        if source is None:
            raise ModelError(
                f"{model.path} has no chat template: take a chat model, or continue a text with `cadcpp generate`"
            )
        self._model = model
        bos, eos = (
            model.piece(t, special=True).decode("utf-8", "replace") if t >= 0 else "" for t in (model.bos, model.eos)
        )
        try:
            self._format = Jinja2ChatFormatter(template=source, eos_token=eos, bos_token=bos)
        except Exception as error:  # a template is code from the model file and may raise anything
            raise ModelError(f"the chat template of {model.path} is broken ({error}): take another file") from error

    def render(self, messages: list[dict[str, str]]) -> str:
        """The text of a conversation, up to where the assistant's next words go."""
        typed: Any = messages
        try:
            return str(self._format(messages=typed).prompt)
        except Exception as error:
            raise ConfigError(f"the chat template of {self._model.path} refuses this conversation: {error}") from error

    def tokenize(self, text: str) -> list[int]:
        """Token ids of rendered text, which brings its own start tokens."""
        return self._model.tokenize(text, add_special=False)
