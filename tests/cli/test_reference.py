"""docs/cli.md says what --help says."""

from cadcpp.cli.reference import page
from tests.cli.test_help import ALL
from tests.support.command import ROOT

PAGE = ROOT / "docs" / "cli.md"
MAKE = "python -m cadcpp.cli.reference > docs/cli.md"


def test_the_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text("utf-8").rstrip("\n") == page().rstrip("\n"), f"docs/cli.md is stale: {MAKE}"
    assert MAKE in page()


def test_the_page_has_every_command_and_option() -> None:
    for parameter in ALL:
        command = parameter.values[0]
        for option in (o for o in command.params if getattr(o, "opts", ("-",))[0].startswith("-")):
            assert f"| `{option.opts[0]}`" in page() or option.name == "version"
