"""`cadcpp models inspect` and `check`: look at one model file, and at two that are to work together."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cadcpp.cli.terminal import say

if TYPE_CHECKING:
    from cadcpp.gguf.summary import ModelSummary


@click.command("inspect")
@click.argument("model", type=Path, metavar="M.gguf")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; sizes in bytes.")
def inspect(model: Path, as_json: bool) -> None:
    """Show what is in a model file: size, layers, context, types.

    Reads the header only, so that it takes no time and no memory.
    """
    from cadcpp.gguf.header import read_header
    from cadcpp.gguf.summary import read_summary

    card = read_summary(read_header(model))
    say(json.dumps(asdict(card)) if as_json else _table(card))


def _table(card: "ModelSummary") -> str:
    from cadcpp.util.byte_size import format_size

    files = f" in {card.n_files} files" if card.n_files > 1 else ""
    experts = f", {card.n_experts} experts" if card.n_experts else ""
    weights = ", ".join(f"{name} {format_size(n_bytes)}" for name, n_bytes in card.types.items())
    rounding = f"; {', '.join(card.inexact_types)} is rounded differently in batches" if card.inexact_types else ""
    rows = {
        "name": card.name or "not given",
        "licence": card.licence or "not given",
        "size": format_size(card.n_bytes) + files,
        "architecture": card.architecture,
        "parameters": f"{card.n_parameters / 1e9:.2f} billion",
        "layers": f"{card.n_layer} of width {card.n_embd}, heads of {card.head_size}{experts}",
        "trained for": f"{card.n_ctx_train} tokens",
        "vocabulary": f"{card.n_vocab} tokens, {card.tokenizer}",
        "chat template": "yes" if card.chat_template else "none: it continues text and does not chat",
        "weights": weights + rounding,
    }
    return "\n".join(f"{label:14} {value}" for label, value in rows.items())


@click.command("check")
@click.argument("verifier", type=Path, metavar="V.gguf")
@click.argument("draft", type=Path, metavar="D.gguf")
@click.option(
    "--measure",
    is_flag=True,
    help="Also load both, let the verifier write some text, and measure how often the draft agrees; takes minutes.",
)
def check(verifier: Path, draft: Path, measure: bool) -> None:
    """Check whether a draft fits a verifier.

    Compares vocabulary, special tokens, chat template and architecture, and says whether the types of the weights
    keep the text exact. Reads the headers only, unless --measure is given.
    """
    from cadcpp.gguf.header import read_header
    from cadcpp.models.compatibility import check_fit

    for what, found in check_fit(read_header(verifier), read_header(draft)):
        say(f"{what:14} {found}")
    if measure:
        from cadcpp.models.draft_quality import agreement, write_texts

        texts, _ = write_texts(verifier, draft)
        say(f"{'agreement':14} {agreement(draft, texts):.0%} of {sum(t.n for t in texts)} tokens")
