"""Which layers go to workers, and what a pass between machines costs."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cadcpp.errors import ConfigError
from cadcpp.gguf.blocks import block_state_bytes, cache_heads
from cadcpp.gguf.header import Header, Tensor
from cadcpp.residency.footprint import block_cache_bytes, cache_bytes
from cadcpp.residency.layout import lay_out
from cadcpp.residency.link_cost import link_cost
from cadcpp.residency.placement import Offer, Share, place_layers, without_blocks
from cadcpp.residency.states import States

N_LAYER, MIB = 8, 1 << 20
SIZES = {"block_count": N_LAYER, "embedding_length": 64, "attention.head_count": 2, "attention.head_count_kv": 2}


def model(*, recurrent: bool = False, n_ahead: int = 0) -> Header:
    """Blocks of 3 MiB and more, in the order of a file."""
    names = ["token_embd.weight", "output.weight", "output_norm.weight"]
    for i in range(N_LAYER):
        names += [f"blk.{i}.attn_q.weight", f"blk.{i}.ffn_up.weight", *([f"blk.{i}.ssm_a"] if recurrent else [])]
        names += [f"blk.{i}.nextn.eh_proj.weight"] if i >= N_LAYER - n_ahead else []
    sizes = [MIB if "attn" in name else 2 * MIB for name in names]
    starts = itertools.accumulate(sizes, initial=4096)
    tensors = tuple(
        Tensor(*each, (64, 64, 1, 1)) for each in zip(names, itertools.repeat(8), starts, sizes, strict=False)
    )
    metadata = {"general.architecture": "llama", **{f"llama.{name}": n for name, n in SIZES.items()}}
    metadata["llama.nextn_predict_layers"] = n_ahead
    return Header(Path("m.gguf"), 4096 + sum(sizes), metadata, tensors, ())


def place(header: Header, *n_bytes: int) -> tuple[Share, ...]:
    return place_layers(header, [Offer(f"w{i}:1", n) for i, n in enumerate(n_bytes)], 256, 8)


def need(header: Header, n_blocks: int) -> int:
    """Of a worker that takes so many blocks."""
    whole = place(header, 1 << 40)[0]
    return whole.compute + n_blocks * (whole.weights + whole.cache) // whole.n_blocks


@given(st.lists(st.integers(1, N_LAYER), min_size=1, max_size=4))
def test_shares_are_neighbours_at_the_end_and_fit(wanted: list[int]) -> None:
    header = model()
    offers = [need(header, n) for n in wanted]
    shares = place(header, *offers)
    assert shares[-1].stop == N_LAYER
    assert all(a.stop == b.first for a, b in itertools.pairwise(shares))
    assert all(share.n_bytes <= share.offered and share.n_blocks > 0 for share in shares)
    assert sum(share.n_blocks for share in shares) == min(sum(wanted), N_LAYER)


def test_a_block_needs_all_of_its_memory() -> None:
    header = model()
    assert place(header, need(header, 3))[0].n_blocks == 3
    assert place(header, need(header, 3) - 1)[0].n_blocks == 2
    with pytest.raises(ConfigError, match=r"worker w0:1 lends \d+ MiB, and a layer takes \d+ MiB"):
        place(header, need(header, 1) - 1)


def test_blocks_that_no_pass_computes_take_nothing() -> None:
    header = model(n_ahead=2)
    (share,) = place(header, 1 << 40)
    assert share.weights == (N_LAYER - 2) * 3 * MIB and (share.first, share.stop) == (0, N_LAYER)


def test_states_take_memory_where_their_block_is() -> None:
    header = model(recurrent=True)
    header = replace(header, metadata=header.metadata | {"llama.ssm.state_size": 16, "llama.ssm.inner_size": 128})
    few, many = States(), States(n_chains=2, n_snapshots=3)
    shares = [place_layers(header, [Offer("w:1", 1 << 40)], 256, 8, states)[0] for states in (few, many)]
    each = sum(block_state_bytes(header))
    assert each > 0 and [share.cache for share in shares] == [N_LAYER * 2 * each, N_LAYER * 3 * 4 * each]


def test_states_go_over_the_link_where_drafts_cannot_be_taken_back_there() -> None:
    header = model(recurrent=True)
    header = replace(header, metadata=header.metadata | {"llama.ssm.state_size": 16, "llama.ssm.inner_size": 128})
    share = Share("w:1", 0, 2, N_LAYER, 0, 0, 0)
    plain, kept, copied = (
        link_cost(header, share, n_rows, 256, States(n_snapshots=n)) for n_rows, n in ((1, 0), (2, 4), (2, 0))
    )
    assert plain.round_trips == kept.round_trips == 1 and copied.round_trips == 1 + 2 * (N_LAYER - 2)
    assert copied.received_bytes - kept.received_bytes == (N_LAYER - 2) * sum(block_state_bytes(header))


@pytest.mark.parametrize("first", range(N_LAYER + 1))
def test_what_stays_here_is_planned_alone(first: int) -> None:
    header = model()
    here = without_blocks(header, first)
    assert len(cache_heads(here)) == first and lay_out(here, 1 << 40).n_layers == first + 1
    assert here.n_bytes == sum(t.n_bytes for t in header.tensors) - (N_LAYER - first) * 3 * MIB
    assert cache_bytes(here, 256) == sum(block_cache_bytes(header, 256)[:first])


def test_a_pass_costs_by_rows_blocks_and_cells() -> None:
    header, share = model(), Share("w:1", 0, 2, N_LAYER, 0, 0, 0)
    one = link_cost(header, share, 1, 256)
    assert one.received_bytes == 64 * 4 and one.round_trips == 1
    for more in (link_cost(header, share, 2, 256), link_cost(header, share, 1, 512)):
        assert more.sent_bytes > one.sent_bytes
    assert link_cost(header, replace(share, first=3), 1, 256).sent_bytes < one.sent_bytes
    assert one.seconds(0.002, 1e-6) == pytest.approx(0.002 + (one.sent_bytes + one.received_bytes) * 1e-6)
