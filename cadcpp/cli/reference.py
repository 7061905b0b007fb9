"""The page of all commands and options: `python -m cadcpp.cli.reference > docs/cli.md`."""

from collections.abc import Iterator

import click

from cadcpp.cli import main
from cadcpp.cli.terminal import say

_HEAD = """\
# The command line

This page is made from what `--help` says: `python -m cadcpp.cli.reference > docs/cli.md`.

## What goes where

- **Standard output** has what was asked for and nothing else: the text of `generate`, the replies of `chat`, the lines
  or the object of `plan`, `trace`, `doctor` and `models ...`, the paths of files that were made or downloaded.
- **Standard error** has everything else: what is loaded and how far that is, prompts, figures, notes, errors.
- In a pipe or a file the text is to the letter what the model wrote, and a line end. On a terminal control characters
  are shown instead of obeyed, and the replies of `chat` break between words (not in code).
- An error is one line on standard error that begins with `cadcpp:` and says what helps.

## Exit codes

| code | means |
|---|---|
| 0 | done |
| 1 | a file, a model or a state that does not work; `doctor` found something wrong; the reader of a pipe has gone |
| 2 | a wrong argument, found before anything is loaded where that is possible |
| 129, 143 | ended by SIGHUP (the terminal has gone) or SIGTERM |
| 130 | ended by Ctrl-C, in a chat by two in a row |

Ctrl-C, SIGTERM and SIGHUP end a command in order: what was written stays, files are whole, the terminal is as it was.
While it ends, further Ctrl-C do nothing; a second SIGTERM or SIGHUP ends it at once.

In a chat on a terminal, what is typed while a reply is written begins the next line, Enter included; Ctrl-C drops it.

## `--json`

`generate --json` prints one object on one line, at the end:

| key | value |
|---|---|
| `text`, `tokens` | the text, and its token ids |
| `finish_reason` | `stop`: the model ended it; `length`: `-n` tokens, or the context is full |
| `prompt_tokens`, `completion_tokens` | counts |
| `seconds`, `prompt_seconds` | from the start of the prompt to the last token, and to the first |
| `tokens_per_second`, `cpu_seconds_per_token` | of what came after the first pass |
| `stats` | an object, see below |

`stats` has `passes`, `tokens_per_pass`, `drafted`, `accepted`, `draft_seconds`, `verify_seconds`, `stall_seconds`
(waiting for the disk), `load_seconds`, `read_bytes`, `read_bytes_per_token`, `pinned_bytes`, `streamed_bytes_per_pass`,
`peak_rss_bytes`, and more.

`plan --json` and `models inspect --json` print one object too; sizes are in bytes, times in seconds. Keys may be added;
none is renamed or removed without a note in the [changelog](../CHANGELOG.md).

## Values

A size is a number and a unit: `kB MB GB TB` are powers of 1000, `KiB MiB GiB TiB` and `K M G T` powers of 1024; without
one it is bytes. In the environment `NO_COLOR` switches colours off, and `XDG_STATE_HOME` says where chats are kept.
"""
_SHARED = (("generate", "chat", "serve"), ("generate", "chat"))  # commands whose common options stand in one table
_TABLE = "| option | default | |\n|---|---|---|"


def page() -> str:
    """The page, in Markdown."""
    found = dict(_commands(main, "cadcpp"))
    rows = {path: list(map(_row, _options(command))) for path, command in found.items()}
    sections = [section for names in _SHARED for section in _shared([f"cadcpp {name}" for name in names], rows)]
    return "\n".join([_HEAD, *sections, *(line for path in found for line in _section(found[path], path, rows[path]))])


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """What can be run, by its name with those above it."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command, info_name=path)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from _commands(below, f"{path} {name}")


def _options(command: click.Command) -> list[click.Option]:
    return [option for option in command.params if isinstance(option, click.Option)]


def _shared(paths: list[str], rows: dict[str, list[str]]) -> list[str]:
    """The table of what some commands have in common, which is taken out of their own."""
    common = [row for row in rows[paths[0]] if all(row in rows[path] for path in paths)]
    for path in paths:
        rows[path] = [row for row in rows[path] if row not in common]
    names = [f"`{path}`" for path in paths]
    return [f"## Options of {', '.join(names[:-1])} and {names[-1]}\n", _TABLE, *common, ""]


def _section(command: click.Command, path: str, rows: list[str]) -> Iterator[str]:
    arguments = [str(argument.metavar) for argument in command.params if isinstance(argument, click.Argument)]
    yield f"## `{path}`\n"
    yield f"    {' '.join([path, *(['[OPTIONS]'] if _options(command) else []), *arguments])}\n"
    yield f"{_paragraphs(command.help or '')}\n"
    if rows:
        yield _TABLE
        yield from rows
        yield ""


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _row(option: click.Option) -> str:
    """A line of the table; a default that is no value is part of the help."""
    text, _, told = (option.help or "").partition(" [default: ")
    default = told.rstrip("]") or _default(option)
    return f"| {', '.join(f'`{spelling}`' for spelling in option.opts)}{_value(option)} | {default} | {_cell(text)} |"


def _default(option: click.Option) -> str:
    if option.required:
        return "required"
    return f"`{option.default}`" if option.show_default else "off" if option.is_flag else ""


def _value(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return _cell(f" `{'|'.join(option.type.choices)}`")
    return f" `{option.metavar}`" if option.metavar else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


@click.command()
def show() -> None:
    """Print the page."""
    say(page().rstrip("\n"))


if __name__ == "__main__":
    show()
