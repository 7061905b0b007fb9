"""Commands of a chat: what begins with a slash, and what users of other programs type in its place."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click

from cadcpp.chat.transcript import Transcript, is_transcript, load
from cadcpp.cli.chat.colours import LEGEND
from cadcpp.cli.chat.footer import table
from cadcpp.cli.chat.keyboard import usual_keyboard
from cadcpp.cli.chat.live_chat import Talk, resumed
from cadcpp.errors import ConfigError
from cadcpp.util.text_file import read_text

_QUOTED = '""" ... """'


class Leave(Exception):
    """The chat is over."""


@dataclass(frozen=True, slots=True)
class Command:
    """``run`` gets what stands behind the command's name, and returns what there is to say."""

    usage: str
    help: str
    run: Callable[[Talk, str], str]
    spellings: tuple[str, ...] = ()  # what else it is called
    words: tuple[str, ...] = ()  # ... at a keyboard

    @property
    def name(self) -> str:
        return self.usage.split()[0]


def find(line: str, interactive: bool) -> tuple[Command, str] | None:
    """The command that a line is, and the rest of the line; None for a message.

    Raises ConfigError if it looks like a command and is none.
    """
    name, _, rest = line.partition(" ")
    for command in COMMANDS:
        if name.lower() in (command.name, *command.spellings) or (interactive and line.lower() in command.words):
            return command, rest.strip()
    if line.startswith("/"):
        raise ConfigError(f'no command {name}: /help lists them; a message that begins with / goes between """ and """')
    return None


def _help(_talk: Talk, _rest: str) -> str:
    lines = [f"{command.usage:20} {command.help}" for command in COMMANDS]
    return "\n".join([*lines, *_KEYS])


def _reset(talk: Talk, _rest: str) -> str:
    talk.begin(talk.conversation.replay(m for m in talk.conversation.messages if m.role == "system"))
    return "forgotten"


def _regen(talk: Talk, _rest: str) -> str:
    question = _last_question(talk)
    sampling = talk.settings.sampling
    talk.settings.sampling = replace(sampling, seed=(sampling.seed + 1) % 2**32)
    talk.ask(question, instead=True)
    return ""


def _edit(talk: Talk, rest: str) -> str:
    question = _last_question(talk)
    if not rest:
        talk.editing = question
        return "the next message takes the place of the last one"
    talk.ask(rest, instead=True)
    return ""


def _editor(talk: Talk, rest: str) -> str:
    try:
        with usual_keyboard():
            text = (click.edit(rest) or "").strip()
    except click.ClickException as error:
        raise ConfigError(f"{error.format_message()}: set EDITOR to an editor that is installed") from None
    if text:
        talk.ask(text)
    return ""


def _undo(talk: Talk, _rest: str) -> str:
    question = _last_question(talk)
    talk.conversation.undo()
    talk.change(talk.conversation)
    return f"taken back: {question.splitlines()[0][:60]}"


def _system(talk: Talk, rest: str) -> str:
    if rest:
        talk.change(talk.conversation.with_system(rest if rest.strip("\"'") else None))
    return f"system prompt: {talk.conversation.system or 'none'}"


def _set(talk: Talk, rest: str) -> str:
    name, _, value = rest.removeprefix("parameter ").strip().partition(" ")
    if name == "system":
        return _system(talk, value.strip())
    if name in ("verbose", "quiet"):
        talk.settings.footer = name == "verbose"
        return f"figures under replies: {'on' if talk.settings.footer else 'off'}"
    if name:
        talk.settings.set(name, value.strip())
    return talk.settings.describe()


def _read(talk: Talk, rest: str) -> str:
    path = _path(rest, "/read FILE")
    text = read_text(path)
    talk.attached.append(text)
    return f"{path.name}: {len(text)} letters go with the next message"


def _save(talk: Talk, rest: str) -> str:
    path = _path(rest, "/save FILE")
    try:
        if path.exists() and not is_transcript(path):
            raise ConfigError(f"{path} is there and no transcript of a chat: name another file")
        Transcript(path).save(talk.conversation.messages)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; name another file") from None
    return f"saved to {path}"


def _load(talk: Talk, rest: str) -> str:
    path = _path(rest, "/load FILE")
    talk.begin(talk.conversation.replay(load(path)))
    return resumed(talk, path)


def _stats(talk: Talk, _rest: str) -> str:
    return table(talk.record) if talk.record else "no reply yet"


def _show(talk: Talk, rest: str) -> str:
    match rest:
        case "info":
            return talk.about()
        case "system":
            return _system(talk, "")
        case "parameters":
            return talk.settings.describe()
        case "" | "draft" | "off":
            talk.settings.show = rest == "draft" or (not rest and not talk.settings.show)
            return LEGEND if talk.settings.show else "colours: off"
    raise ConfigError(f"nothing to show for {rest}: there are draft, off, info, system and parameters")


def _tree(talk: Talk, _rest: str) -> str:
    last, piece = talk.round, talk.session.model.piece
    if last is None:
        return "no reply yet"

    def text(token: int) -> str:
        return piece(token).decode("utf-8", "replace")

    own = "the end" if len(last.tokens) < len(last.accepted.rows) else repr(text(last.accepted.bonus))
    drawn = last.tree.draw(text, last.accepted.rows)
    return f"{drawn}\naccepted: {len(last.accepted.rows) - 1} of {len(last.tree) - 1}, then the verifier's own: {own}"


def _reconnect(talk: Talk, _rest: str) -> str:
    talk.reconnect()
    shares = talk.session.plan.workers
    return f"goes on with {', '.join(share.address for share in shares)}" if shares else "goes on without workers"


def _quit(_talk: Talk, _rest: str) -> str:
    raise Leave


def _last_question(talk: Talk) -> str:
    questions = [message.content for message in talk.conversation.messages if message.role == "user"]
    if not questions:
        raise ConfigError("there is no question yet: ask one")
    return questions[-1]


def _path(rest: str, usage: str) -> Path:
    if not rest:
        raise ConfigError(f"no file is named: {usage}")
    try:
        return Path(rest).expanduser()
    except RuntimeError:
        raise ConfigError(f"{rest.split('/')[0]} has no home directory: name the file by its whole path") from None


COMMANDS = (
    Command("/help", "this list", _help, ("/?", "/h"), ("h", "help", "?")),
    Command("/reset", "forget the conversation", _reset, ("/clear",), ("r",)),
    Command("/regen", "write the last reply anew, with the next seed", _regen, ("/regenerate", "/retry")),
    Command("/edit [TEXT]", "change the last question and ask again", _edit),
    Command("/editor", "write a message in $EDITOR", _editor, ("!edit",)),
    Command("/undo", "take the last question and its reply back", _undo),
    Command("/system [TEXT]", 'show or change the system prompt; "" is none', _system),
    Command("/set [NAME NUMBER]", "show or change temperature, top-k, seed, n, ...", _set),
    Command("/read FILE", "put a text file in front of the next message", _read, ("/file", "!fragment")),
    Command("/save FILE", "write the conversation to a file", _save),
    Command("/load FILE", "take a saved conversation up again", _load),
    Command("/stats", "all figures of the last reply", _stats),
    Command("/show [draft|off]", "what was drafted, in colour; also info, system, parameters", _show),
    Command("/tree", "the last token tree, and what of it was accepted", _tree),
    Command("/reconnect", "after a worker was lost: go on with those that are there", _reconnect),
    Command("/quit", "leave (so does Ctrl-D)", _quit, ("/bye", "/exit", "/q"), ("exit", "quit", "q", "bye")),
)
_KEYS = (
    f"{_QUOTED:20} a message of several lines; or Alt-Enter, or a \\ at the end of each",
    f"{'Ctrl-C':20} stop the reply; twice: leave",
)
