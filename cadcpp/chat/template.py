"""The model's own chat template, rendered by sandboxed Jinja."""

import json
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cadcpp.chat.messages import takes_system, without_system
from cadcpp.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from cadcpp.native.model import Model


class Template:
    """The model's own Jinja chat template, in the environment that Transformers defines for such templates.

    What Transformers leaves to the caller is done as in llama.cpp's `common/chat.cpp`: system messages for templates
    that have no place for them, and the token that begins a text.
    """

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
        if messages and messages[0]["role"] == "system" and not self._takes_system:
            messages = without_system(messages)
        try:
            return self._render(messages)
        except Exception as error:
            raise ConfigError(f"the chat template of {self._model.path} refuses this conversation: {error}") from error

    def _render(self, messages: list[dict[str, str]]) -> str:
        # Templates ask whether the last two are None, which a name that is not there is not.
        return self._template.render(messages=messages, add_generation_prompt=True, tools=None, documents=None)

    @cached_property
    def _takes_system(self) -> bool:
        return takes_system(self._render)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a whole conversation: it begins once, as its template or its file wants it."""
        model = self._model
        return model.tokenize(text.removeprefix(self._special(model.bos)) if model.adds_bos else text)


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
