"""The model's own chat template, rendered by sandboxed Jinja."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cadcpp.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from cadcpp.native.model import Model


class Template:
    """The model's own Jinja chat template, in the environment that Transformers defines for such templates."""

    def __init__(self, model: "Model") -> None:
        source = model.chat_template
        if source is None:
            raise ModelError(
                f"{model.path} has no chat template: take a chat model, or continue a text with `cadcpp generate`"
            )
        self._model = model
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _raise, "strftime_now": lambda f: datetime.now().strftime(f)}
        environment.globals |= {"bos_token": self._special(model.bos), "eos_token": self._special(model.eos)}
        try:
            self._template = environment.from_string(source)
        except Exception as error:  # a template is code from the model file and may raise anything
            raise ModelError(f"the chat template of {model.path} is broken ({error}): take another file") from error

    def _special(self, token: int) -> str:
        return self._model.piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    def render(self, messages: list[dict[str, str]]) -> str:
        """The text of a conversation, up to where the assistant's next words go."""
        try:
            return self._template.render(messages=messages, add_generation_prompt=True)
        except Exception as error:
            raise ConfigError(f"the chat template of {self._model.path} refuses this conversation: {error}") from error

    def tokenize(self, text: str) -> list[int]:
        """Token ids of rendered text, which brings its own start tokens."""
        return self._model.tokenize(text, add_special=False)

    def spells(self, tokens: Sequence[int], text: str) -> bool:
        """Whether these are ids of the model, and ``text`` is what they say."""
        if not all(0 <= token < self._model.n_vocab for token in tokens):
            return False
        return b"".join(map(self._model.piece, tokens)).decode("utf-8", "replace") == text


class _Generation(Extension):
    """Templates mark with ``{% generation %}`` what a model is trained on; for rendering it means nothing."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: str) -> None:
    raise ValueError(message)


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, **{"ensure_ascii": False} | options)
