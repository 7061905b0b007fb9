"""`cadcpp serve`: the models behind OpenAI's API."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cadcpp.cli.options import MODEL_OPTIONS, always_staged, default_ctx, sampler_option, session_config
from cadcpp.cli.terminal import note
from cadcpp.errors import ConfigError, ModelError
from cadcpp.modes import Draws
from cadcpp.util.extras import require

if TYPE_CHECKING:
    import socket

    from cadcpp.llama.llama import Llama

_NEEDED = ("starlette", "uvicorn")


@click.command("serve")
@MODEL_OPTIONS
@sampler_option("llama")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen at. One that other machines reach needs a key.",
)
@click.option("--port", default=8000, show_default=True, metavar="N", help="Port; 0: any that is free.")
@click.option(
    "--api-key",
    envvar="CADCPP_API_KEY",
    metavar="KEY",
    help="Answer only requests with this key. CADCPP_API_KEY in the environment is safer: other users of the machine "
    "can see arguments. [default: no key]",
)
@click.option(
    "--cors",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let web pages of this origin, such as https://chat.example, use the server with the key; *: of all. May be "
    "given several times. [default: no pages but its own]",
)
@click.option("--alias", metavar="NAME", help="Name of the model in requests and answers. [default: its file's name]")
@click.option(
    "--chat-format",
    metavar="NAME",
    help="How messages become a prompt, as llama-cpp-python names it: chatml, llama-3, ... "
    "[default: the model's own template]",
)
@click.option(
    "--logprobs",
    is_flag=True,
    help="Answer requests for logprobs. Takes up to 4 bytes of memory times vocabulary size times --ctx.",
)
def command(
    model: Path,
    draft: Path | None,
    ctx: int | None,
    host: str,
    port: int,
    api_key: str | None,
    origins: tuple[str, ...],
    alias: str | None,
    chat_format: str | None,
    logprobs: bool,
    sampler: Draws,
    **engine: Any,
) -> None:
    """Serve a model over HTTP: a page to chat with, and OpenAI's API.

    The page is at http://127.0.0.1:8000, the API at http://127.0.0.1:8000/v1, unless --host and --port say otherwise.
    Clients of llama-server and of ollama find what they expect as well. Requests are answered one after the other.
    Needs `pip install 'cadcpp[server]'`.
    """
    _check(port, api_key, origins)
    config = session_config(ctx=ctx, **engine).resolve(draft is not None)  # checked before anything is loaded
    n_ctx = _context(model, ctx)
    with _listen(host, port, api_key) as listener, redirect_stdout(sys.stderr):  # upstream's application prints
        from cadcpp.server.run import serve  # first: memory is planned around what the process holds

        options = {
            "draft_model_path": draft,
            "n_ctx": n_ctx,
            "logits_all": logprobs,
            "sampler": sampler,
            **_options(**engine),
        }
        options["chat_format"] = _known(chat_format)
        with _load(model, options) as llama:
            name = alias or model.stem
            _tell(llama, name, draft, n_ctx)
            if remark := always_staged(config):
                note(f"drafting: {remark}")
            note(f"serving {_url(listener)}; Ctrl-C ends it")
            serve(llama, name, api_key, listener, origins)


def _check(port: int, api_key: str | None, origins: tuple[str, ...]) -> None:
    require("server", "cadcpp serve", *_NEEDED)
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port must be between 0 and 65535, got {port}")
    if api_key is not None and not api_key.strip():
        raise ConfigError("--api-key is empty: give a key, or leave it out to answer everybody")
    if origins and api_key is None:
        raise ConfigError("--cors lets pages of other sites in, and they would need no key: set CADCPP_API_KEY")
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
            raise ConfigError(f"--cors must be an origin such as https://chat.example, got {origin!r}")


def _known(chat_format: str | None) -> str | None:
    """A chat format that there is."""
    from cadcpp.llama.chat import chat_formats

    if chat_format is not None and chat_format not in chat_formats():
        raise ConfigError(f"--chat-format must be one of {', '.join(chat_formats())}, got {chat_format!r}")
    return chat_format


def _context(model: Path, ctx: int | None) -> int:
    """Tokens of context. The class would leave a larger one, or a file that is no model, to upstream."""
    from cadcpp.gguf.header import read_header
    from cadcpp.gguf.validate import check_context

    n_ctx = default_ctx(model) if ctx is None else ctx
    check_context(n_ctx, read_header(model))
    return n_ctx


def _options(
    ram: str | None, threads: int | None, workers: str | None, no_pipeline: bool, no_pager: bool, **same: Any
) -> dict[str, Any]:
    """The engine's options, as the class calls them."""
    switches = {"pipeline": not no_pipeline, "pager": not no_pager}
    return {"ram": ram, "n_threads": threads, "workers": workers or (), **switches, **same}


def _load(model: Path, options: dict[str, Any]) -> "Llama":
    from jinja2 import TemplateError

    from cadcpp.llama.llama import Llama

    try:
        return Llama(str(model), verbose=False, **options)
    except TemplateError as error:
        raise ModelError(f"the chat template of {model} is broken ({error}): take another file") from None


@contextmanager
def _listen(host: str, port: int, api_key: str | None) -> "Iterator[socket.socket]":
    """Listen before anything is loaded, since that may take a minute; who connects early waits."""
    import socket
    from ipaddress import ip_address

    try:
        family, *_, address = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)[0]
        if api_key is None and not ip_address(address[0]).is_loopback:
            raise ConfigError(
                f"others can reach {host}, and would need no key: set CADCPP_API_KEY, or listen at 127.0.0.1"
            )
        listener = socket.create_server(address[:2], family=family)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"cannot listen at {host} port {port}: {reason}; give another --host or --port") from None
    with listener:
        yield listener


def _tell(llama: "Llama", name: str, draft: Path | None, n_ctx: int) -> None:
    """What is served, and where the memory goes."""
    from cadcpp.util.byte_size import format_size

    plan = llama.plan
    if plan is None:
        note(f"{name}: {n_ctx} tokens of context; llama.cpp alone serves it, with neither drafts nor paging")
        return
    reads = f"every pass reads {format_size(plan.read_bytes)}" if plan.streams else "everything fits"
    note(
        f"{name}: {n_ctx} tokens of context, {f'draft: {draft.stem}' if draft else 'no draft model'}; "
        f"memory: {format_size(plan.peak)} of {format_size(plan.ram)} planned, {reads}"
    )
    for share in plan.workers:
        note(f"worker {share.address} computes layers {share.first} to {share.stop - 1}")


def _url(listener: "socket.socket") -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
