"""`cadcpp plan`: where the memory would go, and how fast it would be; loads nothing."""

import json
from pathlib import Path
from typing import Any

import click

from cadcpp.cli.options import PAIR_OPTIONS, default_ctx
from cadcpp.cli.terminal import say


@click.command("plan")
@PAIR_OPTIONS
@click.option(
    "--disk-speed",
    metavar="SIZE",
    help="What the disk reads in a second, such as 100MiB. [default: measured on V.gguf]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; sizes in bytes, times in seconds.")
def command(
    model: Path,
    draft: Path | None,
    ctx: int | None,
    max_tree_size: int | None,
    ram: str | None,
    disk_speed: str | None,
    as_json: bool,
) -> None:
    """Show where memory would go, and how fast a reply can be.

    Lists what would stay in memory, what every pass of the verifier would read from the disk, and how long that
    takes at least. Loads no weights.
    """
    from cadcpp.config import SessionConfig
    from cadcpp.gguf.header import read_header
    from cadcpp.residency.tree_buffers import plan_session
    from cadcpp.system.disk_speed import disk_bytes_per_s
    from cadcpp.system.memory_limits import lockable_bytes
    from cadcpp.tree.limits import limit_tree
    from cadcpp.util.byte_size import parse_size

    verifier, drafter = read_header(model), read_header(draft) if draft else None
    size = parse_size(ram) if ram is not None else None
    config = SessionConfig(n_ctx=default_ctx(model) if ctx is None else ctx, ram=size, tree=limit_tree(max_tree_size))
    plan, tree_buffers = plan_session(config.resolve(draft is not None), verifier, drafter)
    speed = parse_size(disk_speed) if disk_speed else disk_bytes_per_s(model)
    values = plan.to_dict() | {
        "disk_bytes_per_second": round(speed),
        "streams": plan.streams,
        "seconds_per_pass_at_least": round(plan.read_bytes / max(speed, 1), 4),
        "rows": tree_buffers.rows,
        "rows_at_most": tree_buffers.most,
        "rows_bytes": tree_buffers.bytes_for(tree_buffers.most),
        "lockable": min(lockable_bytes(), plan.layout.pinned_bytes),
    }
    say(json.dumps(values) if as_json else _table(values))


_ROWS = (
    ("python", "Python and libraries"),
    ("draft", "draft: weights"),
    ("draft_cache", "draft: KV cache"),
    ("draft_compute", "draft: buffers"),
    ("vocabulary", "verifier: vocabulary"),
    ("cache", "verifier: KV cache"),
    ("compute", "verifier: buffers"),
    ("margin", "margin"),
    ("pinned", "verifier weights kept"),
    ("window", "verifier weights in flight"),
    ("experts", "verifier's experts kept"),
)


def _table(values: dict[str, Any]) -> str:
    from cadcpp.util.byte_size import format_size

    lines = [f"{label:28} {format_size(values[key]):>10}" for key, label in _ROWS if values[key]]
    lines.append(f"{'memory in all':28} {format_size(values['ram']):>10}")
    if not values["streams"]:
        return "\n".join([*lines, "", "Everything fits: nothing is read after loading."])
    if values["lockable"] < values["pinned"]:
        lines.append(
            f"{format_size(values['lockable'])} of it may be locked in memory (RLIMIT_MEMLOCK); the rest stays as long "
            "as nothing else presses."
        )
    read, speed = format_size(values["read_bytes_per_pass"]), format_size(values["disk_bytes_per_second"])
    seconds = values["seconds_per_pass_at_least"]
    lines += ["", f"A pass of one row reads {read} at {speed}/s: {seconds:.2f} s or more."]
    if not values["all_experts"]:
        lines.append(f"That is {seconds:.2f} s a token without a draft, {seconds / 5:.2f} s at 5 tokens a pass.")
    else:
        lines.append(
            f"Of {format_size(values['all_experts'])} of experts a row uses {format_size(values['routed'])}: a pass "
            f"reads what its rows are routed to, and those used most stay in {format_size(values['experts'])}."
        )
    if values["rows_bytes"]:
        lines.append(
            f"Memory is reserved for draft trees of {values['rows']} nodes. They grow to {values['rows_at_most']} "
            f"where that is faster; {format_size(values['rows_bytes'])} of the resident weights are then streamed."
        )
    if values["sparse"]:
        lines.append(f"{format_size(values['sparse'])} of embeddings are read row by row as they are needed.")
    return "\n".join(lines)
