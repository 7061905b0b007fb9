"""The command line. Commands load when they are called, so that --help needs no native library."""

import importlib

import click

from cadcpp._version import __version__
from cadcpp.errors import CadError, ConfigError

_COMMANDS = {"generate": "generate", "chat": "chat", "models": "models"}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"cadcpp.cli.{_COMMANDS[cmd_name]}").command
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except CadError as error:
            click.echo(f"cadcpp: {' '.join(str(error).split())}", err=True)
            ctx.exit(2 if isinstance(error, ConfigError) else 1)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="cadcpp")
def main() -> None:
    """Chat with a model that is larger than memory.

    A small draft model proposes a tree of continuations, the large verifier checks the whole tree in one
    pass. The text is exactly what the verifier alone would have written.
    """
