"""The command line. Commands load when they are called, so that --help needs no native library."""

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from cadcpp._version import __version__
from cadcpp.cli import ending
from cadcpp.cli.ending import INTERRUPTED
from cadcpp.cli.terminal import note
from cadcpp.errors import CadError, ConfigError

_COMMANDS = {  # name -> its module here
    "generate": "generate",
    "chat": "chat",
    "serve": "serve",
    "plan": "plan",
    "worker": "worker",
    "models": "models.make",
    "trace": "trace",
    "doctor": "doctor",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"cadcpp.cli.{_COMMANDS[cmd_name]}").command
        return command

    def __call__(self, *args: Any, **extra: Any) -> Any:
        """The program, with the process in its hands; `main` alone is for callers that go on afterwards."""
        if not extra.get("standalone_mode", True):
            return self.main(*args, **extra)
        ending.run(lambda: self.main(*args, **extra))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and exit; whatever a user can cause is one line on stderr, everything else a traceback."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        _tolerate_encodings()
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except (CadError, click.ClickException) as error:
            code = _report(error)
        except click.Abort:  # Ctrl-C; what is on stdout so far stays
            code = INTERRUPTED
        sys.exit(code if isinstance(code, int) else 0)


def _tolerate_encodings() -> None:
    """A terminal that lacks a character shows a question mark; a model may write any."""
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _report(error: CadError | click.ClickException) -> int:
    """Tell the error in one line; returns the exit code."""
    if isinstance(error, CadError):
        code, message = 2 if isinstance(error, ConfigError) else 1, str(error)
    elif isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # click 8.2: the help is the message
        error.show()
        return error.exit_code
    else:
        code, message = error.exit_code, error.format_message() + _remedy(error)
    note(f"cadcpp: {' '.join(message.split())}")
    return code


def _remedy(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f" See `{context.command_path} --help`." if context else ""


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="cadcpp")
def main() -> None:
    """Run a language model that is larger than memory.

    A small draft model proposes a tree of continuations, and the large model (the verifier) checks the whole tree in
    one pass. The text is exactly what the large model alone would have written.
    """
