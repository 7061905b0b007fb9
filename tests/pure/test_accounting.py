"""Rounds as they are counted, by hand."""

import numpy as np
import pytest

from cadcpp.draft.base import DraftedTree
from cadcpp.residency.pager import NullPager, PagerState
from cadcpp.runtime.accounting import Accounting
from cadcpp.runtime.round import DraftRecord, PassRecord, RoundRecord
from cadcpp.telemetry.stats import Stats
from cadcpp.tree.token_tree import TokenTree
from cadcpp.verify.accept import Accepted

TREE = TokenTree.build([1, 2, 3, 4], [-1, 0, 1, 0], [0.0, -0.1, -0.2, -1.0])


def record(n_decodes: int = 2, n_emitted: int = 3, tree: TokenTree = TREE, n_paged: int = 9) -> RoundRecord:
    """A tree of four nodes of which two were right: 0.3 s of drafting, 0.2 of them after a text was read."""
    drafted = DraftedTree(tree=tree, n_evaluated=5, n_kept=1)
    draft = DraftRecord(
        drafted=drafted,
        n_uncached=7,
        n_rows=6 + len(tree),
        n_decodes=n_decodes,
        n_ahead=0,
        start=10.0,
        begun=10.1,
        stop=10.3,
    )
    verify = PassRecord(start=11.0, stop=12.0, stall_s=0.4)
    accepted = Accepted([0, 1, 2] if len(tree) > 1 else [0], 9)
    return RoundRecord(draft=draft, verify=verify, accepted=accepted, n_emitted=n_emitted, n_paged=n_paged)


class Reading(NullPager):
    """Has read so much by now."""

    def __init__(self) -> None:
        self.now = PagerState(stall_seconds=5.0, expert_bytes=100, experts_used=10, experts_read=10, passes=3)

    def state(self) -> PagerState:
        return self.now


def test_rounds_add_up() -> None:
    accounting = Accounting(Stats(), NullPager(), n_decodes=1, load_seconds=4.0)
    accounting.count(record(n_decodes=2), dict)
    accounting.count(record(n_decodes=5, n_emitted=2), dict)
    stats = accounting.stats
    assert (stats.passes, stats.drafted, stats.accepted, stats.emitted) == (2, 6, 4, 5)
    assert stats.draft_decodes == 4 and stats.load_seconds == 4.0
    assert [stats.draft_seconds, stats.verify_seconds] == pytest.approx([0.6, 2.0])


def test_paging_counts_from_where_the_generation_began() -> None:
    pager = Reading()
    accounting = Accounting(Stats(), pager)
    pager.now = PagerState(
        pinned_bytes=7,
        stall_seconds=6.5,
        expert_bytes=700,
        experts_used=50,
        experts_read=20,
        expert_seconds=0.25,
        passes=5,
        pass_bytes=1000,
        streamed_bytes=3000,
    )
    accounting.count(record(), dict)
    stats = accounting.stats
    assert (stats.pinned_bytes, stats.stall_seconds) == (7, 1.5)
    assert stats.streamed_bytes_per_pass == 1000 + 600 // 2
    assert (stats.expert_hit_rate, stats.expert_read_bytes, stats.expert_stall_seconds) == (0.75, 600, 0.25)


def test_without_experts_there_is_no_hit_rate() -> None:
    accounting = Accounting(Stats(), NullPager())
    accounting.count(record(), dict)
    assert accounting.stats.expert_hit_rate is None


def test_bytes_read_for_the_prompt_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt of several passes is all read when the first text comes."""
    read = iter([100, 5100, 5900])
    monkeypatch.setattr("cadcpp.runtime.accounting.read_bytes", lambda: next(read))
    accounting = Accounting(Stats(), NullPager())
    for _ in range(2):
        accounting.count(record(), dict)
    stats = accounting.stats
    assert (stats.read_bytes, stats.prompt_read_bytes, stats.read_bytes_per_token) == (5800, 5000, 5800 // 6)


def test_what_a_policy_learns_from() -> None:
    seen = record().observation()
    assert (seen.n_rows, seen.n_evaluated, seen.n_tokens, seen.n_accepted, seen.n_branch) == (10, 5, 3, 2, 2)
    assert [seen.draft_s, seen.compute_s, seen.stall_s] == pytest.approx([0.2, 0.6, 0.4])
    np.testing.assert_array_equal(seen.depth, [0, 1, 2, 1])


@pytest.mark.parametrize(("n_paged", "cold"), [(0, False), (1, True), (2, True), (3, False)])
def test_the_first_passes_of_a_pager_are_cold(n_paged: int, cold: bool) -> None:
    assert record(n_paged=n_paged).observation().cold == cold


def test_what_was_evaluated_for_a_tree_of_its_root_alone_is_told_as_well() -> None:
    """It took time, though nothing was worth a row."""
    seen = record(tree=TokenTree.root(1)).observation()
    assert (seen.n_evaluated, len(seen.logp)) == (5, 1)
