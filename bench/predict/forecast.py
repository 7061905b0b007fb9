"""How fast a pair of models would be on a device: the planner's own formulas, fed with the device's figures.

A pass costs the memory's time for the weights, and the processor's for each row beyond the first. Kernels, heat, other
programs, and the share of the processor that reading takes are not modelled.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from bench.predict.devices import Architecture, Device
from cadcpp.config import SessionConfig
from cadcpp.gguf.header import Header, Part, Tensor
from cadcpp.models.catalog import Entry
from cadcpp.policy.cost_model import CostModel
from cadcpp.policy.pass_cost import PassCost
from cadcpp.residency.context_shape import ContextShape
from cadcpp.residency.kernel_mode import KernelModes
from cadcpp.residency.layout import CHUNK, lay_out
from cadcpp.residency.link_cost import link_cost
from cadcpp.residency.memory_plan import Plan
from cadcpp.residency.placement import Offer, Share, place_layers, without_blocks
from cadcpp.residency.tree_buffers import expected, plan_session
from cadcpp.tree.limits import GrowthOptions, TreeLimits, limit_tree
from cadcpp.tree.prices import MAX_ROWS, Floats, Prices
from cadcpp.tree.token_tree import TokenTree

_WIDTH = GrowthOptions().width  # nodes that the draft evaluates together
_TAIL = 0.6  # of what the guesses before have missed a guess after the first misses this share, and so on
_GUESSES = 8


@dataclass(frozen=True, slots=True)
class Workers:
    """Further machines like the first one, each behind a link of its own."""

    n: int
    round_trip_s: float
    byte_s: float

    def shares(self, header: Header, ram: int, config: SessionConfig) -> tuple[Share, ...]:
        """What they compute of a verifier, each with as much memory."""
        offers = [Offer(f"worker {i + 1}", ram) for i in range(self.n)]
        return place_layers(header, offers, config.n_ctx, max(config.tree.max_size, config.tree.max_size_streamed))

    def link_s(self, header: Header, shares: Sequence[Share], n_rows: int, n_ctx: int) -> float:
        """Seconds of a pass on all links, with a text that fills the context."""
        costs = (link_cost(header, share, n_rows, n_ctx) for share in shares)
        return sum(cost.seconds(self.round_trip_s, self.byte_s) for cost in costs)


ALONE = Workers(0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds per token."""

    plan: Plan
    mapped_s: float  # plain llama.cpp, memory-mapped: all that workers leave, for every token, if it does not fit
    plain_s: float  # cadcpp without drafts
    model: CostModel  # with drafts

    @property
    def drafted_s(self) -> float:
        """With trees as large as pays, none included."""
        return 1 / max(self.model.rate(), 1 / self.plain_s)

    def given(self, rows: int, tokens: float) -> float:
        """With trees of so many rows that bring so many tokens a pass."""
        expected = np.zeros(MAX_ROWS)
        expected[min(max(rows - 1, 1), MAX_ROWS - 1)] = tokens
        return 1 / replace(self.model, tokens=expected).rate()


def forecast(
    verifier: Header,
    draft: Header | None,
    device: Device,
    agreement: float,
    n_ctx: int,
    kernels: KernelModes = KernelModes(),  # noqa: B008 - frozen
    workers: Workers = ALONE,
) -> Forecast:
    """What to expect; of plain decoding alone if there is no draft.

    Machines take turns, and the disk reads meanwhile: a pass is computed as long as on one, and passes all links.

    Raises ConfigError where too little memory is left for the verifier.
    """
    config = SessionConfig(ram=device.ram, n_ctx=n_ctx, tree=limit_tree(None))
    shares = workers.shares(verifier, device.ram, config)
    here = without_blocks(verifier, shares[0].first) if shares else verifier
    plan, tree_buffers = plan_session(config, here, draft, kernels)
    alone, _ = plan_session(replace(config, tree=TreeLimits(max_size=1)), here, None, kernels)
    (base_s, row_s), (draft_s, draft_row_s) = (pass_s(h, device) if h else (0.0, 0.0) for h in (verifier, draft))
    one_s, two_s = (workers.link_s(verifier, shares, n, n_ctx) for n in (1, 2))
    base_s, row_s = base_s + one_s, row_s + two_s - one_s
    branches = plan.draft_shape is not None and (plan.draft_shape.states is None or plan.draft_shape.n_seq > 1)
    model = CostModel(
        verify=costs(base_s, row_s),
        node_s=draft_s / _WIDTH + draft_row_s if branches else draft_s,
        nodes=1.0,
        disk=expected(plan, tree_buffers, byte_s(device)),
    )
    if draft:
        drafted = (tree if branches else chain)(agreement, tree_buffers.most)
        model = replace(model, tokens=tokens_by_rows(drafted, plan.verifier_shape))
    mapped = here.n_bytes * byte_s(device) if alone.streams else 0.0
    return Forecast(
        replace(plan, workers=shares), max(mapped, base_s), max(alone.read_bytes * byte_s(device), base_s), model
    )


def byte_s(device: Device) -> float:
    """Seconds of reading a byte, chunk after chunk."""
    return 1 / device.disk_bytes_per_s + device.latency_s / CHUNK


def costs(base_s: float, row_s: float) -> PassCost:
    """What passes of all sizes take, as if each had been seen."""
    known = PassCost()
    for n_rows in (1, 2, 4, 8, 16, 32, 64, 128, MAX_ROWS):
        known.add(n_rows, base_s + row_s * (n_rows - 1))
    return known


def pass_s(header: Header, device: Device) -> tuple[float, float]:
    """Seconds of a pass with one row, and of every further one; embeddings that are only looked up cost nothing."""
    share = 1 - lay_out(header, header.n_bytes).sparse_bytes / header.n_bytes
    n_weights = share * sum(prod(tensor.shape) for tensor in header.tensors)
    return share * header.n_bytes / device.memory_bytes_per_s, 2 * n_weights / device.flops


def tokens_by_rows(drafted: TokenTree, shape: ContextShape) -> Floats:
    """Tokens that passes of 1, 2, ... rows bring, [MAX_ROWS], by what the verifier would check of what was drafted.

    Text that is evaluated again where there are no snapshots is left out.
    """
    if shape.states is None:
        best = [np.sort(np.exp(drafted.logp))[::-1][:n] for n in range(1, len(drafted) + 1)]
    else:
        chains = shape.chains(1, shape.states.n_snapshots)
        best = [np.exp(chains.best(drafted, Prices(), n).logp) for n in range(1, len(drafted) + 1)]
    tokens = np.array([p.sum() for p in best])
    return np.concatenate([tokens, np.full(MAX_ROWS - len(tokens), tokens[-1])])


def tree(agreement: float, n: int = MAX_ROWS) -> TokenTree:
    """The likeliest ``n`` nodes of a draft that is right so often, the root included.

    Every guess is as good as any other, whatever the text: the tokens that trees of 2 to 256 rows brought on four texts
    (bench/measured/sweep.jsonl) come out within a tenth with the demo's agreement, which fixed _TAIL.
    """
    shares = [agreement, *((1 - agreement) * (1 - _TAIL) * _TAIL**i for i in range(_GUESSES - 1))]
    waiting, parent, probability = [(-1.0, -1)], list[int](), list[float]()
    while len(parent) < n:
        p, above = heapq.heappop(waiting)
        for share in shares:
            heapq.heappush(waiting, (p * share, len(parent)))
        parent.append(above)
        probability.append(-p)
    return TokenTree.build(range(n), parent, np.log(probability).tolist())


def chain(agreement: float, n: int) -> TokenTree:
    """The same of a draft that has no other guess than its first."""
    return TokenTree.build(range(n), range(-1, n - 1), (np.arange(n) * np.log(agreement)).tolist())


def header_of(entry: Entry, a: Architecture) -> Header:
    """A header like the file's: its size from the catalogue, its weights equally many bits each."""
    attention = a.head_size * (2 * a.heads + 2 * a.kv_heads)
    shapes = {"token_embd.weight": (a.width, a.vocabulary)}
    for i in range(a.layers):
        shapes[f"blk.{i}.attn.weight"] = (a.width, attention)
        for name in ("gate", "up", "down"):
            shapes[f"blk.{i}.ffn_{name}.weight"] = (a.width, a.hidden)
    if not a.tied:
        shapes["output.weight"] = (a.width, a.vocabulary)
    scale, at, tensors = entry.n_bytes / sum(map(prod, shapes.values())), 0, []
    for name, shape in shapes.items():
        tensors.append(Tensor(name, 0, at, int(prod(shape) * scale), shape))
        at += tensors[-1].n_bytes
    attributes = {
        "block_count": a.layers,
        "embedding_length": a.width,
        "attention.head_count": a.heads,
        "attention.head_count_kv": a.kv_heads,
        "attention.key_length": a.head_size,
        "attention.value_length": a.head_size,
    }
    metadata = {"general.architecture": "llama", **{f"llama.{name}": value for name, value in attributes.items()}}
    path = Path(entry.file)
    return Header(path, entry.n_bytes, metadata, tuple(tensors), (Part(path, entry.n_bytes, 0),))
