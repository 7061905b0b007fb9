"""What went wrong with a request, as OpenAI's API says it."""

import logging
from traceback import format_tb
from typing import Any

from jinja2 import TemplateError
from starlette.exceptions import HTTPException

from cadcpp.errors import CadError, ClosedError, ConfigError, ContextFull, NativeError, WorkerError
from cadcpp.server.fields import Unsupported

logger = logging.getLogger("cadcpp.server")

_TOO_LONG = "exceed context window"  # as upstream says it
_WITHOUT_LOGITS = "logits_all=False"
_BY_STATUS = {401: "invalid_api_key"}
_PARAMS = (  # which messages begin with
    *("messages", "tools", "tool_choice", "response_format", "grammar", "prompt"),
    "chat_template_kwargs",
)


class UnknownModel(ConfigError):
    """A request for a model that is not served."""


def describe(error: BaseException) -> tuple[int, dict[str, Any]]:
    """The HTTP status, and the value of ``error`` in the answer."""
    error = _first(error)
    status, code = _status(error)
    if isinstance(error, WorkerError):
        logger.error("%s; the next request goes on with the workers that are there then", error)
    elif status >= 500 and not isinstance(error, HTTPException | Unsupported):
        # Without the message, which may quote a user's text.
        logger.error("a request failed: %s\n%s", type(error).__name__, "".join(format_tb(error.__traceback__)))
    kind = "internal_server_error" if status >= 500 else "invalid_request_error"
    return status, {"message": _message(error), "type": kind, "param": _param(error), "code": code}


def shaped(path: str, what: dict[str, Any], status: int) -> dict[str, Any]:
    """An error as clients of this path expect it: ollama's get a text, the others what OpenAI gives."""
    if path.startswith("/api/"):
        return {"error": what["message"]}
    return {"error": what if path.startswith("/v1/") else what | {"code": what["code"] or status}}


def _first(error: BaseException) -> BaseException:
    """The error that a task group, or whoever came too late to report it, has wrapped."""
    while True:
        inside = getattr(error, "exceptions", None)
        if inside:
            error = inside[0]
        elif isinstance(error, RuntimeError) and isinstance(error.__cause__, HTTPException):
            error = error.__cause__
        else:
            return error


def _status(error: BaseException) -> tuple[int, str | None]:
    if isinstance(error, HTTPException):
        return error.status_code, _BY_STATUS.get(error.status_code)
    if isinstance(error, UnknownModel):
        return 404, "model_not_found"
    if isinstance(error, Unsupported):
        return 501, "not_supported"
    if isinstance(error, ContextFull) or _TOO_LONG in str(error):
        return 400, "context_length_exceeded"
    if isinstance(error, WorkerError):
        return 503, "worker_lost"
    if isinstance(error, ClosedError):
        return 503, "unavailable"
    if isinstance(error, NativeError):
        return 500, None
    refused = (CadError, ValueError, AssertionError, TemplateError, RecursionError)
    return 400 if isinstance(error, refused) else 500, None


def _param(error: BaseException) -> str | None:
    """The parameter that is at fault, if one is."""
    param = getattr(error, "param", None) or getattr(error, "place", None)
    if isinstance(param, str):
        return "response_format" if param.startswith("#") else param
    if isinstance(error, ConfigError):
        return next((name for name in _PARAMS if str(error).startswith(name)), None)
    return None


def _message(error: BaseException) -> str:
    if isinstance(error, HTTPException):
        return str(error.detail)
    if isinstance(error, RecursionError):
        return "the request is nested too deeply"
    if isinstance(error, ClosedError):  # to go on without a worker that is lost
        return "the model is being loaded again: try again in a moment"
    if _WITHOUT_LOGITS in str(error):
        return "this server gives no logprobs: start it with --logprobs"
    return str(error) or "the request asks for what this server does not do"
