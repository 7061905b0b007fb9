"""The application: upstream's, with one `Llama` as its model."""

import hmac
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials
from llama_cpp.server import types
from llama_cpp.server.errors import RouteErrorHandler
from llama_cpp.server.model import LlamaProxy
from llama_cpp.server.settings import ModelSettings, ServerSettings
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import Request

from cadcpp.llama.async_llama import AsyncLlama
from cadcpp.llama.llama import Llama
from cadcpp.server.access import largest_body
from cadcpp.server.errors import UnknownModel, describe
from cadcpp.server.middleware import Guard
from cadcpp.server.requests import CreateChatCompletionRequest

types.CreateChatCompletionRequest = CreateChatCompletionRequest  # before the routes are made of it
from llama_cpp.server import app as upstream  # noqa: E402


class OneModel(LlamaProxy):  # type: ignore[misc]
    """The model that is served, under its one name."""

    def __init__(self, llama: Llama, models: list[Any]) -> None:
        self._llama = llama
        super().__init__(models)

    def load_llama_from_model_settings(self, _settings: Any) -> Llama:
        return self._llama

    def __call__(self, model: str | None = None) -> Llama:
        if model is not None and model not in self:
            raise UnknownModel(f"the model {model!r} does not exist; this server has {', '.join(self)}")
        return self._llama


def make_app(llama: Llama, name: str, api_key: str | None = None) -> FastAPI:
    """Upstream's application, serving ``llama`` as ``name``; one per process."""
    async_llama = AsyncLlama(llama)
    upstream.LlamaProxy = partial(OneModel, llama)
    upstream.run_in_threadpool, upstream.iterate_in_threadpool = async_llama.call, async_llama.read
    RouteErrorHandler.error_message_wrapper = lambda _route, error, body=None: describe(error)
    os.environ.pop("CONFIG_FILE", None)  # upstream would take its settings from there
    model = ModelSettings.model_construct(model=str(llama.model_path), model_alias=name)
    settings = ServerSettings.model_construct(api_key=api_key, interrupt_requests=False)  # in turn, to their ends
    app: FastAPI = upstream.create_app(server_settings=settings, model_settings=[model])
    # Coroutines, for requests would overtake one another in the threads that plain functions are called in.
    app.dependency_overrides[upstream.get_llama_proxy] = _served  # models, tokens: out of turn
    app.dependency_overrides[upstream.authenticate] = _authenticate(api_key)
    given: list[Any] = app.user_middleware
    app.user_middleware = [each for each in given if each.cls is not CORSMiddleware]  # which lets every page in
    app.add_middleware(Guard, n_bytes=largest_body(llama.n_ctx()), open=api_key is None)
    app.add_exception_handler(AnyHTTPException, _answer)
    app.add_exception_handler(RequestValidationError, _answer)
    return app


async def _served() -> OneModel:
    model: OneModel = upstream._llama_proxy
    return model


async def _answer(_request: Request, error: Exception) -> JSONResponse:
    status, what = describe(error)
    return JSONResponse({"error": what}, status)


def _authenticate(api_key: str | None) -> Callable[..., Awaitable[None]]:
    """A check that takes equally long however much of the key is right."""

    async def check(given: HTTPAuthorizationCredentials | None = Depends(upstream.bearer_scheme)) -> None:  # noqa: B008
        if api_key is None:
            return
        if given is None or not hmac.compare_digest(given.credentials.encode(), api_key.encode()):
            raise HTTPException(401, "the API key is missing or wrong: give the one that the server was started with")

    return check
