"""Sessions of a mixture of experts in memory for some of them."""

from pathlib import Path
from typing import Any

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.gguf.header import read_header
from cadcpp.residency.memory_plan import Plan, make_plan
from cadcpp.runtime.session import Session
from cadcpp.tree.limits import TreeLimits

N_CTX, ROWS = 256, 16
# Many experts beside dense weights in which buffers for 512 rows find no room.
FEW_DENSE: dict[str, Any] = {"n_layer": 12, "n_embd": 256, "n_ff": 512, "n_experts": 32, "n_used": 2}
GREEDY = SamplingConfig(temperature=0.0)
PROMPT = list(range(20, 60))


def planned(path: Path, draft: Path | None, ram: int, n_ctx: int = N_CTX) -> Plan:
    header = read_header(path)
    return make_plan(header, read_header(draft) if draft else None, ram=ram, n_ctx=n_ctx, rows=ROWS)


def session(path: Path, draft: Path | None, share: float, n_ctx: int = N_CTX, **options: Any) -> Session:
    """In memory for the dense weights and a ``share`` of the experts."""
    whole = planned(path, draft, 1 << 40, n_ctx)
    ram = whole.fixed + whole.layout.pinned_bytes + int(share * whole.layout.expert_bytes) + (1 << 20)
    tree = TreeLimits(max_size=ROWS)
    return Session(path, draft, SessionConfig(n_ctx=n_ctx, n_threads=1, ram=ram, tree=tree, **options))


def write(
    running: Session, n: int, prompt: list[int] = PROMPT, sampling: SamplingConfig = GREEDY, **options: Any
) -> list[int]:
    return [t for chunk in running.stream(prompt, sampling, n, **options) for t in chunk.tokens]
