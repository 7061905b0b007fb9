"""The application: OpenAI's API, and what clients of llama-server and of ollama expect, on one `Llama`."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from cadcpp._version import __version__
from cadcpp.llama.llama import Llama
from cadcpp.server import llama_server, ollama, page
from cadcpp.server.access import Access, largest_body
from cadcpp.server.chats import Chat
from cadcpp.server.completions import Completion
from cadcpp.server.errors import UnknownModel, describe, shaped
from cadcpp.server.fields import BadParameter, Fields
from cadcpp.server.json_answer import JSONAnswer
from cadcpp.server.middleware import Guard
from cadcpp.server.served import Served
from cadcpp.server.streams import Stream, event, line

Handler = Callable[[Request], Awaitable[Any]]
Work = Callable[[Served, Fields], Any]


class Answer(Protocol):
    """A request that was read: its answer, whole or in chunks."""

    stream: bool

    def answer(self) -> Any: ...

    def chunks(self) -> Any: ...


def make_app(llama: Llama, name: str, api_key: str | None = None, origins: tuple[str, ...] = ()) -> Guard:
    """An application that serves ``llama`` as ``name``; with a key, pages of ``origins`` may use it as well."""
    served = Served(llama, name)
    access = Access(api_key, origins)
    handlers = {HTTPException: _failed}  # the guard answers for all others
    app = Starlette(routes=[*_routes(served, access), *page.routes()], exception_handlers=handlers)
    return Guard(app, n_bytes=largest_body(llama.n_ctx()), access=access)


def _routes(served: Served, access: Access) -> list[Route]:
    def get(path: str, work: Callable[[], Any], open: bool = False) -> Route:
        async def handler(request: Request) -> Any:
            if not open:
                access.check_key(request.headers)
            found = work()
            return found if isinstance(found, Response) else JSONResponse(found)

        return Route(path, handler, methods=["GET"])

    def post(path: str, work: Work) -> Route:
        async def handler(request: Request) -> Any:
            return JSONAnswer(work(served, await _fields(request, access)))

        return Route(path, handler, methods=["POST"])

    def write(path: str, make: Callable[[Served, Fields], Answer], spell: Any = event, end: bytes = b"") -> Route:
        async def handler(request: Request) -> Any:
            asked = make(served, await _fields(request, access))
            if asked.stream:
                return Stream(served.read(asked.chunks()), spell, end)
            return JSONAnswer(await served.call(asked.answer))

        return Route(path, handler, methods=["POST"])

    def one_model(request: Request) -> Any:
        access.check_key(request.headers)
        if request.path_params["name"] != served.name:
            raise UnknownModel(f"the model {request.path_params['name']!r} does not exist; this is {served.name}")
        return JSONResponse(_model(served))

    async def model(request: Request) -> Any:
        return one_model(request)

    done = b"data: [DONE]\n\n"
    return [
        *(write(path, Completion, end=done) for path in ("/v1/completions", "/v1/engines/{engine}/completions")),
        *(write(path, Chat, end=done) for path in ("/v1/chat/completions", "/chat/completions")),
        *(get(path, lambda: {"object": "list", "data": [_model(served)]}) for path in ("/v1/models", "/models")),
        Route("/v1/models/{name:path}", model, methods=["GET"]),
        post("/v1/embeddings", _no_embeddings),
        post("/extras/tokenize", lambda served, fields: {"tokens": _tokens(served, fields)}),
        post("/extras/tokenize/count", lambda served, fields: {"count": len(_tokens(served, fields))}),
        post("/extras/detokenize", lambda served, fields: {"text": _text(served, fields)}),
        *(get(path, lambda: {"status": "ok"}, open=True) for path in ("/health", "/v1/health")),
        get("/props", lambda: llama_server.props(served)),
        get("/slots", lambda: llama_server.slots(served)),
        get("/plan", lambda: llama_server.plan(served)),
        get("/metrics", lambda: PlainTextResponse(served.metrics.text(), media_type="text/plain; version=0.0.4")),
        post("/tokenize", llama_server.tokenize),
        post("/detokenize", llama_server.detokenize),
        post("/apply-template", _prompt),
        *(write(path, llama_server.NativeCompletion) for path in ("/completion", "/completions")),
        write("/infill", llama_server.NativeCompletion.infill),
        *(post(path, _no_embeddings) for path in ("/embedding", "/embeddings", "/api/embed", "/api/embeddings")),
        get("/api/version", lambda: {"version": ollama.VERSION, "cadcpp": __version__}),
        get("/api/tags", lambda: ollama.tags(served)),
        get("/api/ps", lambda: ollama.running(served)),
        post("/api/show", ollama.show),
        write("/api/generate", ollama.Generate, line),
        write("/api/chat", ollama.OllamaChat, line),
    ]


async def _fields(request: Request, access: Access) -> Fields:
    """The parameters of a request that may be answered; its body is read first, however large it turns out to be."""
    body = await request.body()
    access.check_key(request.headers)
    try:
        data = json.loads(body or b"{}")
    except RecursionError:
        raise
    except ValueError as error:
        raise BadParameter("the body", f"is no JSON: {_where(error)}") from None
    fields = Fields(data)
    if "engine" in request.path_params:  # the model's name is in the path, and is any
        fields = Fields({**data, "model": None})
    return fields


def _where(error: ValueError) -> str:
    return f"line {error.lineno} column {error.colno}" if isinstance(error, json.JSONDecodeError) else "not UTF-8"


async def _failed(request: Request, error: Exception) -> Response:
    status, what = describe(error)
    headers = getattr(error, "headers", None)
    return JSONResponse(shaped(request.url.path, what, status), status, headers=headers)


def _model(served: Served) -> dict[str, Any]:
    return {"id": served.name, "object": "model", "created": served.created, "owned_by": "me", "permissions": []}


def _no_embeddings(_served: Served, _fields: Fields) -> Any:
    raise llama_server.not_embedded()


def _tokens(served: Served, fields: Fields) -> list[int]:
    served.check_name(fields)
    text = fields.text("input")
    if text is None:
        raise fields.bad("input", "must be a string")
    return list(served.llama.tokenize(text.encode(), special=True))


def _text(served: Served, fields: Fields) -> str:
    served.check_name(fields)
    ids = llama_server.token_ids(fields, "tokens")
    return served.llama.detokenize(ids).decode("utf-8", "replace")


def _prompt(served: Served, fields: Fields) -> dict[str, str]:
    return {"prompt": served.llama.chat_prompt(fields.get("messages"), fields.get("tools"))}
