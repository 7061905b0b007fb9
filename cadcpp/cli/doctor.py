"""`cadcpp doctor`: what is wrong or slow here, and what helps."""

from pathlib import Path

import click

from cadcpp.cli.options import CACHE_VALUES
from cadcpp.cli.terminal import say
from cadcpp.modes import CacheValues

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
@click.option(
    "--exact",
    "verifier",
    type=Path,
    metavar="V.gguf",
    help="Look at this model instead: whether speculation keeps its text here. Writes some of it, with and without.",
)
@CACHE_VALUES
@click.pass_context
def command(ctx: click.Context, models: Path, verifier: Path | None, cache_values: CacheValues) -> None:
    """Check the installation and the device, and say what helps.

    Looks at llama.cpp, memory, swap, disk and processor. Each line begins with ok, note, slow or wrong. The exit code
    is 1 if something is wrong; what is only slow does not count.
    """
    from cadcpp.cli.diagnose import examine
    from cadcpp.cli.exactness import try_model

    states = set()
    for finding in examine(models) if verifier is None else try_model(verifier, cache_values):
        states.add(finding.state)
        say(f"{finding.state:<6} {finding.what}")
        if finding.remedy:
            say(f"{'':<6} -> {finding.remedy}")
    ctx.exit(_WRONG if "wrong" in states else 0)
