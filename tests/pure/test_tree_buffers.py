"""How much memory there is for wide passes, from headers alone."""

from typing import Any

import numpy as np
import pytest

from bench.predict.devices import ARCHITECTURES
from bench.predict.forecast import header_of
from cadcpp.config import SessionConfig
from cadcpp.errors import ConfigError
from cadcpp.models.catalog import pairs
from cadcpp.residency.memory_plan import Plan, make_plan
from cadcpp.residency.tree_buffers import TreeBuffers, plan_session
from cadcpp.tree.limits import limit_tree
from cadcpp.tree.prices import FIRST_ROWS

GB = 10**9
PAIR = pairs()["qwen3-14b"]
VERIFIER, DRAFT = (header_of(entry, ARCHITECTURES[entry.name]) for entry in PAIR.models[::-1])


def plan(ram: float, **settings: Any) -> tuple[Plan, TreeBuffers]:
    return plan_session(SessionConfig(ram=int(ram), tree=limit_tree(None), **settings), VERIFIER, DRAFT)


def test_memory_for_wide_passes_is_taken_once_and_kept() -> None:
    tree_buffers = TreeBuffers(100.0 * (1 + _counting(64)), 16, 16)
    taken = []
    for n in (8, 16, 20, 64, 20):
        tree_buffers.allow(n)
        taken.append(tree_buffers.taken)
    assert taken == [0, 0, 400, 4800, 4800]
    assert tree_buffers.rows == 64
    assert not tree_buffers.beyond(300).any()


def test_what_wider_passes_would_still_take_is_known_beforehand() -> None:
    tree_buffers = TreeBuffers(100.0 * _counting(64), 16, 16)
    tree_buffers.allow(32)
    beyond = tree_buffers.beyond(129)
    assert not beyond[:33].any()
    assert list(beyond[[33, 64, 128]]) == [100.0, 3200.0, 3200.0]


def test_where_weights_are_streamed_memory_for_large_trees_is_not_set_aside() -> None:
    growing, tree_buffers = plan(6 * GB)
    fixed = make_plan(VERIFIER, DRAFT, ram=6 * GB, n_ctx=4096, rows=64)
    assert growing.streams and (tree_buffers.most, tree_buffers.rows) == (128, FIRST_ROWS)
    assert growing.layout.streamed_bytes < fixed.layout.streamed_bytes - 50_000_000
    assert growing.fixed + tree_buffers.bytes_for(64) == pytest.approx(fixed.fixed, abs=1 << 20)


@pytest.mark.parametrize(
    "settings", [{"fallback": "none"}, {"fallback": "llmcad"}, {"pager": False}, {"logits_all": True}]
)
def test_where_trees_cannot_grow_their_memory_is_set_aside(settings: dict[str, Any]) -> None:
    fixed, tree_buffers = plan(6 * GB, **settings)
    assert (tree_buffers.most, tree_buffers.rows, tree_buffers.bytes_for(64)) == (64, 64, 0)
    assert fixed.compute >= make_plan(VERIFIER, DRAFT, ram=6 * GB, n_ctx=4096, rows=64).compute


def test_where_all_fits_trees_have_what_is_left() -> None:
    whole, tree_buffers = plan(30 * GB)
    assert not whole.streams and (tree_buffers.most, tree_buffers.bytes_for(tree_buffers.most)) == (64, 0)
    least = make_plan(VERIFIER, DRAFT, ram=30 * GB, n_ctx=4096, rows=64)
    tight, tree_buffers = plan(least.fixed + least.layout.pinned_bytes - 30_000_000)
    assert not tight.streams and FIRST_ROWS <= tree_buffers.most < 64
    assert tight.fixed + tight.layout.pinned_bytes <= tight.ram


def test_where_all_fits_prompts_are_read_in_passes_as_large_as_fit() -> None:
    least = make_plan(VERIFIER, DRAFT, ram=30 * GB, n_ctx=4096, rows=64)
    rows = []
    for spare in (0, 60_000_000, 10 * GB):
        tight, _ = plan(least.peak + least.margin + spare)
        assert not tight.streams and tight.peak + tight.margin <= tight.ram
        assert tight.draft_shape is not None and tight.draft_shape.n_batch <= tight.verifier_shape.n_batch
        rows.append(tight.verifier_shape.n_batch)
    assert rows[0] == 64 < rows[1] < rows[2] == 64 + SessionConfig().n_batch


def test_trees_leave_half_of_what_stays() -> None:
    with pytest.raises(ConfigError) as error:
        plan(1 * GB)
    least = int(str(error.value).split("allow ")[1].split(" MiB")[0]) << 20
    narrow, tree_buffers = plan(least)
    assert tree_buffers.bytes_for(tree_buffers.most) <= narrow.layout.pinned_bytes // 2


@pytest.mark.parametrize("rows", [1, 4, 200])
def test_what_the_user_asks_for_is_the_most(rows: int) -> None:
    config = SessionConfig(ram=6 * GB, tree=limit_tree(rows))
    _, tree_buffers = plan_session(config, VERIFIER, DRAFT)
    assert tree_buffers.most == rows and tree_buffers.rows == min(rows, FIRST_ROWS)


def _counting(n: int) -> Any:
    return np.arange(n + 1, dtype=np.float64)
