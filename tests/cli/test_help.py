"""What --help says of every command, and names that options had before."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from cadcpp.cli import main


def commands(command: click.Command = main, path: str = "cadcpp") -> Iterator[tuple[str, click.Command]]:
    """Every command under a name as it is typed."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, f"{path} {name}")


ALL = [pytest.param(command, id=path) for path, command in commands()]


@pytest.mark.parametrize("command", ALL)
def test_every_option_has_a_sentence_of_help(command: click.Command) -> None:
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert all(option.help and option.help[0].isupper() and option.help[-1] in ".])" for option in options)


@pytest.mark.parametrize("command", ALL)
def test_lists_of_commands_cut_no_sentence_off(command: click.Command) -> None:
    shown = CliRunner().invoke(command, ["--help"], terminal_width=100).output
    assert "..." not in shown.partition("Commands:")[2]


@pytest.mark.parametrize("command", ALL)
def test_an_option_without_a_default_says_what_happens_instead(command: click.Command) -> None:
    numbers = [
        o for o in command.params if isinstance(o, click.Option) and isinstance(o.type, click.types.IntParamType)
    ]
    assert all(o.show_default or "[default: " in (o.help or "") or o.name == "n_tokens" for o in numbers)


@pytest.mark.parametrize(
    ("arguments", "old", "new"),
    [
        pytest.param(["generate", "-p", "Hi"], ["--rows", "300"], "--max-tree-size", id="--rows"),
        pytest.param(["plan"], ["--rows", "no"], "--max-tree-size", id="--rows of plan"),
        pytest.param(["generate", "-p", "Hi"], ["--n", "no"], "--n-predict", id="--n"),
        pytest.param(["chat"], ["--keep-cache", "-n", "0"], "--save-kv-cache", id="--keep-cache"),
    ],
)
def test_a_former_name_works_and_is_not_shown(arguments: list[str], old: list[str], new: str) -> None:
    shown, by_old, by_new = (
        CliRunner().invoke(main, [*arguments, "-m", "none.gguf", *more]) for more in (["--help"], old, [new, *old[1:]])
    )
    assert new in shown.output and f"{old[0]} " not in shown.output and f"{old[0]}\n" not in shown.output
    assert (by_old.exit_code, by_old.stderr) == (by_new.exit_code, by_new.stderr) and by_old.exit_code == 2
    assert old[0] not in by_old.stderr.replace(new, "")
