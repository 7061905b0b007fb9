"""docs/cli.md says what --help says."""

import click

from cadcpp.cli.reference import page
from tests.cli.test_help import commands
from tests.support.command import ROOT

PAGE = ROOT / "docs" / "cli.md"
MAKE = "python -m cadcpp.cli.reference > docs/cli.md"


def test_the_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text("utf-8").rstrip("\n") == page().rstrip("\n"), f"docs/cli.md is stale: {MAKE}"
    assert MAKE in page()


def test_the_page_has_every_command_and_option() -> None:
    text = page()
    for path, command in commands():
        assert f"## `{path}`" in text or isinstance(command, click.Group)
        for option in (option for option in command.params if isinstance(option, click.Option)):
            assert f"| `{option.opts[0]}`" in text or option.name == "version"
