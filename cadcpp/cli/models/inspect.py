"""`cadcpp models inspect` and `check`: look at one model file, and at two that are to work together."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cadcpp.cli.options import CACHE_VALUES
from cadcpp.cli.terminal import say

if TYPE_CHECKING:
    from cadcpp.gguf.summary import ModelSummary
    from cadcpp.modes import CacheValues
    from cadcpp.residency.kernel_mode import KernelModes


@click.command("inspect")
@click.argument("model", type=Path, metavar="M.gguf")
@CACHE_VALUES
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; sizes in bytes.")
def inspect(model: Path, cache_values: "CacheValues", as_json: bool) -> None:
    """Show what is in a model file: size, layers, context, types.

    Also whether speculation keeps its text. Reads the header only; the last is tried on a small model like it, which
    takes a second at the first time.
    """
    from cadcpp.config import SessionConfig
    from cadcpp.gguf.header import read_header
    from cadcpp.gguf.summary import read_summary
    from cadcpp.gguf.validate import check_generative
    from cadcpp.runtime.kernel_choice import foreseen_modes

    header = read_header(model)
    check_generative(header)
    card, modes = read_summary(header), foreseen_modes(SessionConfig(cache_values=cache_values), header)
    say(json.dumps(asdict(card) | _exactness(modes)) if as_json else _table(card, modes))


def _exactness(modes: "KernelModes") -> dict[str, Any]:
    both = modes.kept, modes.streamed
    return {
        "exact": all(mode.exact for mode in both),
        "inexact_because": next((mode.reason for mode in both if not mode.exact), ""),
        "kernels_in_memory": modes.kept.name,
        "kernels_streamed": modes.streamed.name,
    }


def _table(card: "ModelSummary", modes: "KernelModes") -> str:
    from cadcpp.util.byte_size import format_size

    files = f" in {card.n_files} files" if card.n_files > 1 else ""
    experts = f", {card.n_experts} experts" if card.n_experts else ""
    ahead = f"; {card.n_ahead} of them predict further tokens and are never read" if card.n_ahead else ""
    weights = ", ".join(f"{name} {format_size(n_bytes)}" for name, n_bytes in card.types.items())
    rows = {
        "name": card.name or "not given",
        "licence": card.licence or "not given",
        "size": format_size(card.n_bytes) + files,
        "architecture": card.architecture,
        "parameters": f"{card.n_parameters / 1e9:.2f} billion",
        "layers": f"{card.n_layer} of width {card.n_embd}, heads of {card.head_size}{experts}{ahead}",
        "state": f"recurrent, {format_size(card.state_bytes)}: drafts are chains" if card.state_bytes else "none",
        "trained for": f"{card.n_ctx_train} tokens",
        "vocabulary": f"{card.n_vocab} tokens, {card.tokenizer}",
        "chat template": "yes" if card.chat_template else "none: it continues text and does not chat",
        "weights": weights,
        "in memory": modes.kept.verdict,
        "streamed": modes.streamed.verdict,
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
@CACHE_VALUES
def check(verifier: Path, draft: Path, measure: bool, cache_values: "CacheValues") -> None:
    """Check whether a draft fits a verifier.

    Compares vocabulary, special tokens, chat template and architecture, and says whether this machine keeps the text
    exact, as inspect does. Reads the headers only, unless --measure is given.
    """
    from cadcpp.config import SessionConfig
    from cadcpp.gguf.header import read_header
    from cadcpp.models.compatibility import check_fit
    from cadcpp.runtime.kernel_choice import foreseen_modes

    headers = read_header(verifier), read_header(draft)
    for what, found in check_fit(*headers):
        say(f"{what:14} {found}")
    modes = foreseen_modes(SessionConfig(cache_values=cache_values), headers[0])
    say(f"{'in memory':14} {modes.kept.verdict}")
    say(f"{'streamed':14} {modes.streamed.verdict}")
    if measure:
        from cadcpp.models.draft_quality import agreement, write_texts

        texts, _ = write_texts(verifier, draft)
        say(f"{'agreement':14} {agreement(draft, texts):.0%} of {sum(t.n for t in texts)} tokens")
