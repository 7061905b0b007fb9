"""`cadcpp models list` and `pull`: pairs that fit together, and how to get them."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cadcpp.cli.terminal import note, say

if TYPE_CHECKING:
    from cadcpp.models.catalog import Entry

_DIRECTORY = click.option(
    "--dir",
    "directory",
    type=Path,
    default="models",
    show_default=True,
    envvar="CADCPP_MODELS",
    metavar="DIRECTORY",
    help="Where models are. CADCPP_MODELS in the environment sets it too.",
)


_NO_DRAFT = "none: n-grams"


@click.command("list")
@_DIRECTORY
def list_models(directory: Path) -> None:
    """List pairs of models that fit together, and files on disk.

    Each pair with its sizes, the memory that it suits and its licence. A star marks those that suit the memory of
    this device. Sizes with a ~ are approximate. Where a family has no draft, the text so far drafts, or what
    make-draft makes.
    """
    from cadcpp.models.catalog import pairs
    from cadcpp.system.memory_limits import available_bytes

    ram = available_bytes()
    say(f"{'pair':<17}{'verifier':>9}  {'draft':<15}{'size':>8}  {'memory':<14}licence")
    for name, pair in pairs().items():
        memory = f"{pair.ram_gb[0]:g} to {pair.ram_gb[1]:g} GB"
        here = "on disk" if all(_on_disk(model, directory) for model in pair.models) else ""
        draft = f"{pair.draft.name:<15}{_size(pair.draft):>8}" if pair.draft else f"{_NO_DRAFT:<15}{'':>8}"
        say(
            f"{name + (' *' if pair.suits(ram) else ''):<17}{_size(pair.verifier):>9}  {draft}"
            f"  {memory:<14}{pair.verifier.licence:<21}{here}".rstrip()
        )
    found = sorted(directory.glob("*.gguf"))
    say(f"\nOn disk, in {directory}:" if found else f"\nNo models in {directory} yet.")
    for path in found:
        say(f"{_format(path.stat().st_size):>9}  {path.name}")


def _size(model: "Entry") -> str:
    return ("" if model.bytes else "~") + _format(model.n_bytes)


def _format(n_bytes: int) -> str:
    from cadcpp.util.byte_size import format_size

    return format_size(n_bytes)


def _on_disk(model: "Entry", directory: Path) -> bool:
    return (directory / model.file).is_file()


@click.command("pull")
@click.argument("name", metavar="NAME|REPOSITORY")
@click.argument("file", required=False, metavar="[FILE]")
@_DIRECTORY
def pull(name: str, file: str | None, directory: Path) -> None:
    """Download models from Hugging Face; prints their paths.

    NAME is a pair or a model of `cadcpp models list`. Any other model is a REPOSITORY and a FILE in it; of a model in
    several files, the first one. The same command goes on with a download that was interrupted. Needs `pip install
    'cadcpp[pull]'`. In the environment, HF_ENDPOINT names another hub, and HF_TOKEN gives access where a licence had
    to be accepted.
    """
    from cadcpp.models import hub
    from cadcpp.models.catalog import find

    wanted = [(name, file)] if file else [(model.repository, model.file) for model in find(name)]
    for repository, one in wanted:
        note(f"fetching {one} of {repository}")
        say(hub.pull(repository, one, directory)[0])
