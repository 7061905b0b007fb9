"""The banner: what will run, on one screen, before it is loaded."""

from pathlib import Path
from typing import TYPE_CHECKING

from cadcpp.cli.options import always_staged
from cadcpp.util.byte_size import format_size

if TYPE_CHECKING:
    from cadcpp.config import SessionConfig
    from cadcpp.residency.memory_plan import Plan
    from cadcpp.residency.placement import Share

Pair = tuple[Path, Path | None]  # verifier, draft
_MEASURE_S = 0.3
_PER_PASS = 5  # tokens, with a draft; the README has what was measured


def screen(plan: "Plan", config: "SessionConfig", pair: Pair) -> str:
    """The models, what of them stays in memory, the context, and how fast that can be at best.

    Where weights are streamed the disk is measured for that, for a moment.
    """
    layout, (verifier, draft) = plan.layout, pair
    size = layout.pinned_bytes + layout.streamed_bytes + layout.expert_bytes + layout.sparse_bytes
    rows = [("verifier", f"{verifier.name}, {format_size(size)}")]
    if config.tree.max_size > 1:
        rows.append(("drafting", _drafting(plan, config, draft)))
    rows += [
        ("context", f"{config.n_ctx} tokens"),
        ("threads", _threads(config)),
        ("memory", f"{format_size(plan.peak)} of {format_size(plan.ram)}"),
        ("weights", _weights(plan)),
        *[("worker", _worker(share)) for share in plan.workers],
        ("speed", _speed(plan, config, verifier)),
    ]
    if plan.limited:
        rows.append(("limited", plan.limited))
    return "\n".join(f"{name:10}{text}" for name, text in rows)


def _threads(config: "SessionConfig") -> str:
    return f"{config.n_threads}: {config.threads_because}" if config.threads_because else f"{config.n_threads}"


def _drafting(plan: "Plan", config: "SessionConfig", draft: Path | None) -> str:
    if not draft or not plan.draft:
        return "from what the text said before"
    remark = always_staged(config)
    return f"{draft.name}, {format_size(plan.draft)}" + (f"; {remark}" if remark else "")


def _weights(plan: "Plan") -> str:
    if not plan.streams:
        return "all stay in memory"
    kept, streamed = (format_size(n) for n in (plan.layout.pinned_bytes, plan.layout.streamed_bytes))
    experts = f", {format_size(plan.experts)} for experts" if plan.layout.expert_bytes else ""
    return f"{kept} stay in memory, {streamed} are streamed{experts}"


def _worker(share: "Share") -> str:
    layers = f"layers {share.first} to {share.stop - 1}"
    return f"{share.address} computes {layers}, {format_size(share.weights)} of weights"


def _speed(plan: "Plan", config: "SessionConfig", verifier: Path) -> str:
    from cadcpp.system.disk_speed import disk_bytes_per_s

    if not plan.streams:
        return "nothing is read from the disk after loading"
    disk = disk_bytes_per_s(verifier, _MEASURE_S)
    seconds = plan.read_bytes / disk
    text = (
        f"a pass reads {format_size(plan.read_bytes)} at {format_size(round(disk))}/s: {seconds:.2g} s a token or more"
    )
    drafts = plan.draft and config.tree.max_size > 1
    return f"{text}, {seconds / _PER_PASS:.2g} s at {_PER_PASS} tokens a pass" if drafts else text
