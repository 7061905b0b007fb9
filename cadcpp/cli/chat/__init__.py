"""`cadcpp chat`: a conversation in the terminal."""

import sys
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cadcpp.chat.transcript import Message, load
from cadcpp.cli.chat.banner import Pair, screen
from cadcpp.cli.chat.opening import Opening
from cadcpp.cli.chat.state_dir import HOMELESS, Places, cache_of
from cadcpp.cli.options import MODEL_OPTIONS, SAMPLING_OPTIONS, make_sampling, make_workers, open_session
from cadcpp.cli.renamed import Renamed
from cadcpp.cli.terminal import is_terminal, note
from cadcpp.errors import ConfigError
from cadcpp.util.extras import require

if TYPE_CHECKING:
    from collections.abc import Callable

    from cadcpp.cli.chat.live_chat import Talk
    from cadcpp.cli.chat.settings import Settings
    from cadcpp.runtime.session import Session


@click.command("chat")
@MODEL_OPTIONS
@SAMPLING_OPTIONS
@click.option("--system", metavar="TEXT", help="System prompt: what the model is told before the conversation.")
@click.option("--continue", "resume", is_flag=True, help="Go on with the last chat, even if it was killed.")
@click.option(
    "--save-kv-cache",
    cls=Renamed,
    formerly=("--keep-cache",),
    is_flag=True,
    help="On leaving save the verifier's KV cache too, so that --continue need not evaluate the conversation again.",
)
@click.option(
    "--show",
    type=click.Choice(["draft"]),
    help="Colour what was drafted: green by the draft model, cyan by n-grams.",
)
def command(
    n_predict: int,
    sampling: dict[str, Any],
    system: str | None,
    resume: bool,
    save_kv_cache: bool,
    show: str | None,
    **model_options: Any,
) -> None:
    """Talk with a model in the terminal; /help lists commands.

    Ctrl-C stops a reply, twice leaves. Every chat is kept in ~/.local/state/cadcpp (or $XDG_STATE_HOME/cadcpp) as it
    is written. Replies go to standard output, everything else to standard error.
    """
    from cadcpp.cli.chat.settings import Settings

    if _is_interactive():
        require("chat", "a chat at a terminal", "prompt_toolkit")
    settings = Settings(make_sampling(**sampling), n_predict, show is not None)
    places = _places()
    earlier = _earlier(places) if resume else None
    pair = model_options["model"], model_options["draft"]
    opening = Opening(pair, places, interactive=_is_interactive(), reads=not resume)
    with ExitStack() as stack:

        def start(opening: Opening = opening, **changed: Any) -> "Session":
            options = model_options | changed
            return stack.enter_context(
                open_session(n_predict=n_predict, planned=opening.announce, meanwhile=opening.meanwhile, **options)
            )

        def restart(**changed: Any) -> "Session":
            return start(Opening(pair, places, interactive=_is_interactive(), reads=False), **changed)

        reopen = partial(_reopen, restart, model_options["workers"])
        talk = _talk(start(), settings, pair, places, system, reopen)
        if earlier is not None:
            _resume(talk, *earlier, system)
        if save_kv_cache:
            stack.callback(talk.save_kv_cache)
        _run(talk, opening)


def _reopen(start: "Callable[..., Session]", workers: str | None) -> "Session":
    """A session with the workers that answer now; the others are named, with the reason."""
    from cadcpp.link.connection import look_for

    there, absences = look_for(make_workers(workers))
    for absence in absences:
        note(f"cadcpp: {absence}; until /reconnect this machine goes on without it")
    return start(workers=",".join(map(str, there)) or None)


def _talk(
    session: "Session",
    settings: "Settings",
    pair: Pair,
    places: Places,
    system: str | None,
    reopen: "Callable[[], Session]",
) -> "Talk":
    from cadcpp.chat.conversation import Conversation
    from cadcpp.chat.template import Template
    from cadcpp.cli.chat.live_chat import Talk

    conversation = Conversation(Template(session.model), system)
    return Talk(
        session, conversation, settings, lambda now: screen(now.plan, now.config, pair), places.new_chat, reopen
    )


def _run(talk: "Talk", opening: Opening) -> None:
    from cadcpp.cli.chat import keyboard
    from cadcpp.cli.chat.repl import Repl

    lines = opening.lines
    with talk.interrupts, keyboard.silent_keyboard() if lines.interactive else nullcontext():
        Repl(talk, lines, opening.typed).run()


def _resume(talk: "Talk", path: Path, messages: list[Message], system: str | None) -> None:
    """Go on with an earlier chat, under its own system prompt or another one."""
    from cadcpp.cli.chat.live_chat import resumed
    from cadcpp.kv.saved_cache import load_cache

    earlier = talk.conversation.replay(messages)
    talk.begin(earlier.with_system(system) if system else earlier)
    load_cache(talk.session.engine.verifier.cache, cache_of(path))
    note(resumed(talk, path))


def _places() -> Places:
    """Where chats are, found before anything is loaded."""
    places = Places.found()
    if places.base is None:
        note(f"cadcpp: this chat is not kept: {HOMELESS}")
    return places


def _earlier(places: Places) -> tuple[Path, list[Message]]:
    """The last chat, read before anything is loaded."""
    path = places.last_chat()
    if path is None:
        raise ConfigError(f"no chat to go on with in {places.base or 'no place'}: leave out --continue")
    return path, load(path)


def _is_interactive() -> bool:
    return is_terminal(sys.stdin) and is_terminal(sys.stderr)
