"""`cadcpp doctor`: what is wrong or slow here, and what helps."""

from pathlib import Path

import click

from cadcpp.cli.terminal import say

_WRONG = 1


@click.command("doctor")
@click.option(
    "--dir",
    "models",
    type=Path,
    default="models",
    show_default=True,
    envvar="CADCPP_MODELS",
    metavar="DIRECTORY",
    help="Where models are: the disk under it is measured. CADCPP_MODELS in the environment sets it too.",
)
@click.pass_context
def command(ctx: click.Context, models: Path) -> None:
    """Check the installation and the device, and say what helps.

    Looks at llama.cpp, memory, swap, disk and processor. Each line begins with ok, note, slow or wrong. The exit code
    is 1 if something is wrong; what is only slow does not count.
    """
    from cadcpp.cli.diagnose import examine

    states = set()
    for finding in examine(models):
        states.add(finding.state)
        say(f"{finding.state:<6} {finding.what}")
        if finding.remedy:
            say(f"{'':<6} -> {finding.remedy}")
    ctx.exit(_WRONG if "wrong" in states else 0)
