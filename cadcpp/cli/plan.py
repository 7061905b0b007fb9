"""`cadcpp plan`: where the memory would go, and how fast it would be; loads nothing."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cadcpp.cli.options import PAIR_OPTIONS, default_ctx, pair_config
from cadcpp.cli.plan_workers import remarks_on_workers, with_workers
from cadcpp.cli.terminal import say

if TYPE_CHECKING:
    from cadcpp.config import SessionConfig
    from cadcpp.gguf.header import Header
    from cadcpp.residency.memory_plan import Plan
    from cadcpp.residency.tree_buffers import TreeBuffers


@click.command("plan")
@PAIR_OPTIONS
@click.option(
    "--disk-speed",
    metavar="SIZE",
    help="What the disk reads in a second, such as 100MiB. [default: measured on V.gguf]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; sizes in bytes, times in seconds.")
def command(
    model: Path, draft: Path | None, ctx: int | None, disk_speed: str | None, as_json: bool, **settings: Any
) -> None:
    """Show where memory would go, and how fast a reply can be.

    Lists what would stay in memory, what every pass of the verifier would read from the disk, and how long that
    takes at least. With --workers also what goes to them, and whether that pays. Loads no weights.
    """
    from cadcpp.gguf.header import read_header
    from cadcpp.util.byte_size import parse_size

    config = pair_config(ctx, **settings).resolve(draft is not None)
    if ctx is None:
        config = replace(config, n_ctx=default_ctx(model))
    config = config.with_threads()
    pair = read_header(model), read_header(draft) if draft else None
    plan, tree_buffers = _plan(pair, config)
    values = _values(plan, tree_buffers, parse_size(disk_speed) if disk_speed else None, pair[0])
    lines = [_table(values, plan)]
    if config.workers:
        alone, _ = _plan(pair, replace(config, workers=()))
        values |= with_workers(plan, alone, config, model, tree_buffers.rows, values["disk_bytes_per_second"])
        lines += ["", *remarks_on_workers(values)]
    say(json.dumps(values) if as_json else "\n".join(lines))


def _plan(pair: "tuple[Header, Header | None]", config: "SessionConfig") -> "tuple[Plan, TreeBuffers]":
    from cadcpp.runtime.crew import crew_of
    from cadcpp.runtime.session_plan import plan_with

    with crew_of(config.workers) as crew:
        return plan_with(crew, config, *pair)


def _values(plan: "Plan", tree_buffers: "TreeBuffers", disk_speed: int | None, verifier: "Header") -> dict[str, Any]:
    """What --json prints; the disk is measured on the verifier's file, if nobody says how fast it is."""
    from cadcpp.runtime.learned_demand import outlook_of
    from cadcpp.system.disk_speed import disk_bytes_per_s
    from cadcpp.system.memory_limits import lockable_bytes

    speed = disk_bytes_per_s(verifier.path) if disk_speed is None else disk_speed
    return plan.to_dict() | {
        "disk_bytes_per_second": round(speed),
        "streams": plan.streams,
        "seconds_per_pass_at_least": round(plan.read_bytes / max(speed, 1), 4),
        "rows": tree_buffers.rows,
        "rows_at_most": tree_buffers.most,
        "rows_bytes": tree_buffers.bytes_for(tree_buffers.most),
        "lockable": min(lockable_bytes(), plan.layout.pinned_bytes),
        "outlook": [asdict(other) for other in outlook_of(plan, verifier)],
    }


_ROWS = (
    ("python", "Python and libraries"),
    ("draft", "draft: weights"),
    ("draft_cache", "draft: KV cache"),
    ("draft_compute", "draft: buffers"),
    ("vocabulary", "verifier: vocabulary"),
    ("cache", "verifier: KV cache"),
    ("states", "verifier: states"),
    ("compute", "verifier: buffers"),
    ("margin", "margin"),
    ("pinned", "verifier weights kept"),
    ("window", "verifier weights in flight"),
    ("experts", "verifier's experts kept"),
)


def _table(values: dict[str, Any], plan: "Plan") -> str:
    from cadcpp.util.byte_size import format_size

    lines = [f"{label:28} {format_size(values[key]):>10}" for key, label in _ROWS if values[key]]
    if values["unfilled"]:
        lines.append(f"{'lent by empty KV caches':28} {'-' + format_size(values['unfilled']):>10}")
    lines.append(f"{'memory in all':28} {format_size(values['ram']):>10}")
    lines += ["", f"Kernels: {values['kernels']}; {plan.kernels.promise}."]
    if states := plan.verifier_shape.states:
        lines.append(f"A pass checks {states.verdict}.")
    sizes = {key: format_size(round(value)) for key, value in values.items() if isinstance(value, int | float)}
    if plan.left_out:
        lines.append(f"The draft is not loaded: {plan.left_out_because}. --speculative draft loads it all the same.")
    if values["unused"]:
        lines.append(f"{sizes['unused']} are blocks that predict further tokens, which no pass computes: never read.")
    if not values["streams"]:
        return "\n".join([*lines, "", "Everything fits: nothing is read after loading."])
    return "\n".join([*lines, *_remarks(sizes, values)])


def _remarks(size: dict[str, str], values: dict[str, Any]) -> Iterator[str]:
    """Sentences about weights that are streamed; ``size`` has what is in bytes as text."""
    if values["streaming_limited"]:
        yield f"Streaming is limited: {values['streaming_limited']}."
    if values["lockable"] < values["pinned"]:
        yield (
            f"{size['lockable']} of it may be locked in memory (RLIMIT_MEMLOCK); the rest stays as long as nothing "
            "else presses."
        )
    yield from _remarks_on_speed(size, values)
    if values["rows_bytes"]:
        yield (
            f"Memory is reserved for draft trees of {values['rows']} nodes. They grow to {values['rows_at_most']} "
            f"where that is faster; {size['rows_bytes']} of the resident weights are then streamed."
        )
    if values["unfilled"]:
        yield (
            f"KV caches take memory as the text fills them: one of {values['verifier_shape']['n_cells']} tokens has "
            f"{size['unfilled']} more of the weights {'read again' if values['all_experts'] else 'streamed'}."
        )
    if values["sparse"]:
        yield f"{size['sparse']} of embeddings are read row by row as they are needed."


def _remarks_on_speed(size: dict[str, str], values: dict[str, Any]) -> Iterator[str]:
    seconds = values["seconds_per_pass_at_least"]
    yield ""
    yield (
        f"A pass over one token reads {size['read_bytes_per_pass']} at {size['disk_bytes_per_second']}/s: "
        f"{seconds:.2f} s or more."
    )
    if not values["all_experts"]:
        yield f"That is {seconds:.2f} s a token without a draft, {seconds / 5:.2f} s at 5 tokens a pass."
        return
    yield (
        f"Of {size['all_experts']} of experts a token uses {size['routed']}: a pass reads what its tokens are routed "
        f"to, and those used most stay in {size['experts']}."
    )
    if values["hit_rate"] is None:
        yield "Which ones are used most is learned while text is written; until then all are taken to be alike."
    else:
        yield f"By what was learned so far, {values['hit_rate']:.0%} of a token's experts are in memory."
    yield from _other_budgets(values)


def _other_budgets(values: dict[str, Any]) -> Iterator[str]:
    """What a mixture would read with more memory, or less, and with how little it runs."""
    from cadcpp.util.byte_size import format_size

    yield ""
    yield f"{'experts in memory':>20} {'memory in all':>16} {'read a token':>16}"
    for other in values["outlook"]:
        share, ram, read = f"{other['share']:.0%}", format_size(other["ram"]), format_size(other["read_bytes"])
        yield f"{share:>20} {ram:>16} {read:>16}"
    yield f"It runs in {format_size(values['least'])} or more."
