"""The cost model against a device whose true costs are known."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from cadcpp.draft.best_first import BestFirstGrowth
from cadcpp.policy.base import Disk, Observation, RoundState
from cadcpp.policy.cost_model import CostModel
from cadcpp.policy.pass_cost import AcceptanceByDepth, PassCost
from cadcpp.tree.limits import DraftBudget, GrowthOptions, TreeLimits
from cadcpp.tree.prices import MAX_ROWS, SIZES, Floats
from cadcpp.tree.token_tree import TokenTree

ROWS = 64


def smooth(n: int) -> float:
    return 0.06 + 0.011 * n


def stepped(n: int) -> float:
    """Kernels that work on four rows at a time."""
    return 0.06 + 0.05 * -(-n // 4)


def state(disk: Disk | None = None, max_size: int = ROWS, streamed: int = 0, n_uncached: int = 1) -> RoundState:
    limits = TreeLimits(max_size=max_size, max_size_streamed=streamed)
    return RoundState(limits=limits, max_depth=ROWS, n_uncached=n_uncached, disk=disk or Disk())


def planned(policy: CostModel, state: RoundState) -> DraftBudget:
    budget = policy.plan(state)
    assert budget is not None
    return budget


@dataclass
class Device:
    """A draft that is right ``agrees`` times a depth, on a machine with given costs; seconds."""

    agrees: float = 0.7
    promises: float = 0.7  # what the draft says of itself
    pass_s: Callable[[int], float] = smooth
    node_s: float = 0.006
    stream_s: float = 0.0
    routed_s: Floats = field(default_factory=lambda: np.zeros(SIZES))  # of reading the experts of n rows, [n]
    beyond_s: Floats = field(default_factory=lambda: np.zeros(2 * MAX_ROWS + 1))
    ahead_s: float = 0.0
    seed: int = 1
    seconds: float = 0.0
    tokens: int = 0
    sizes: list[int] = field(default_factory=list)

    def run(self, n_rounds: int, policy: CostModel | None = None, fixed: int | None = None) -> CostModel:
        """Rounds with the policy's chains, or with chains of a fixed number of rows."""
        policy, rng = policy or CostModel(), np.random.default_rng(self.seed)
        same = self._grow(DraftBudget(max_size=fixed, max_depth=ROWS)) if fixed else None
        for _ in range(n_rounds):
            tree, n_nodes = same or self._planned(policy)
            rows = len(tree)
            right = int(np.argmin(np.append(rng.random(ROWS)[: rows - 1] < self.agrees, False)))
            draft_s, compute_s = self.node_s * n_nodes, self.pass_s(rows)
            routed_s = float(self.routed_s[rows])
            stall_s = max(self.stream_s - compute_s - draft_s, 0.0) + routed_s
            policy.observe(
                Observation(
                    n_rows=rows,
                    n_evaluated=n_nodes,
                    n_tokens=1 + right,
                    n_accepted=right,
                    logp=tree.logp,
                    depth=tree.depth,
                    draft_s=draft_s,
                    compute_s=compute_s,
                    stall_s=stall_s,
                )
            )
            self.sizes.append(rows)
            self.tokens += 1 + right
            self.seconds += max(self.stream_s, draft_s + compute_s) + routed_s
        return policy

    def state(self, max_size: int = ROWS, streamed: int = 0, n_uncached: int = 1) -> RoundState:
        disk = Disk(stream_s=self.stream_s, beyond_s=self.beyond_s, routed_s=self.routed_s, ahead_s=self.ahead_s)
        return state(disk, max_size, streamed, n_uncached)

    def budget(self, n_rounds: int, max_size: int = ROWS, streamed: int = 0) -> DraftBudget:
        """What a policy allows after some rounds."""
        return planned(self.run(n_rounds), self.state(max_size, streamed))

    def _planned(self, policy: CostModel) -> tuple[TokenTree, int]:
        budget = policy.plan(self.state())
        return self._grow(budget) if budget else (TokenTree.root(0), 0)

    def _grow(self, budget: DraftBudget) -> tuple[TokenTree, int]:
        """A chain, since the draft knows of one next token only; and how many nodes were evaluated."""
        if budget.max_size == 1:
            return TokenTree.root(0), 0
        growth, rows, n = BestFirstGrowth(0, budget, GrowthOptions(), np.array([1], np.int32)), [0], 0
        while rows:
            growth.expand(rows, np.log([[self.promises, 1 - self.promises]] * len(rows)).astype(np.float32))
            rows, n = growth.frontier(), n + len(rows)
        return growth.tree(), n

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


@pytest.mark.parametrize("pass_s", [smooth, stepped])
@pytest.mark.parametrize("agrees", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("stream_s", [0.0, 0.3, 5.0])
def test_it_comes_near_the_best_fixed_size(agrees: float, pass_s: Callable[[int], float], stream_s: float) -> None:
    def new() -> Device:
        return Device(agrees, agrees, pass_s, stream_s=stream_s, ahead_s=stream_s / 4)

    device, rates = new(), []
    device.run(120)
    for fixed in (1, 2, 4, 8, 16, 64):
        other = new()
        other.run(120, fixed=fixed)
        rates.append(other.rate)
    assert device.rate >= 0.92 * max(rates)


@pytest.mark.parametrize("promises", [0.05, 0.5, 0.95])
def test_a_useless_draft_costs_next_to_nothing(promises: float) -> None:
    useless, plain = Device(agrees=0.0, promises=promises), Device()
    useless.run(400)
    plain.run(400, fixed=1)
    assert useless.rate >= 0.96 * plain.rate


def dear_rows(n: int) -> float:
    """Of kernels that multiply a few rows one by one: 8 cost three times as much as one."""
    return float(np.interp(n, [1, 2, 4, 8, 16, 64], [0.051, 0.102, 0.119, 0.156, 0.241, 0.85]))


class Copies(Device):
    """A text that now and then copies what stands before, in runs of 12 passes; the n-grams know when."""

    def run(self, n_rounds: int, policy: CostModel | None = None, fixed: int | None = None) -> CostModel:
        policy = policy or CostModel(trials=0)
        for i in range(n_rounds // 12):
            self.agrees = self.promises = 0.95 if i % 4 == 3 else 0.15
            super().run(12, policy, fixed)
            self.seed += 1
        return policy


def test_a_text_that_copies_now_and_then_is_drafted_where_it_does() -> None:
    copies = Copies(pass_s=dear_rows, node_s=0.0005)
    copies.run(240)
    sizes = np.array(copies.sizes).reshape(-1, 4, 12)
    assert sizes[1:, 3].mean() > 8
    assert sizes[1:, :3].mean() < 1.5


def test_looking_in_vain_costs_next_to_nothing() -> None:
    looks, plain = (Device(agrees=0.1, promises=0.3, pass_s=dear_rows, node_s=0.0005) for _ in range(2))
    looks.run(400)
    plain.run(400, fixed=1)
    assert looks.rate >= 0.97 * plain.rate


def test_it_finds_its_way_back_when_the_draft_gets_better() -> None:
    policy = Device(agrees=0.0).run(100)
    better = Device(agrees=0.9, promises=0.9)
    better.run(400, policy)
    assert np.mean(np.array(better.sizes[200:]) > 2) > 0.9


@pytest.mark.parametrize("busy", [1.0, 30.0], ids=["of a quiet hour", "of a busy hour"])
def test_costs_that_were_kept_are_measured_anew_when_drafting_is_tried_again(busy: float) -> None:
    """One try is enough, however much dearer drafting seemed then."""
    before = Device(node_s=0.006 * busy).run(60)
    policy, device = CostModel(), Device()
    policy.recall(before.learned())
    policy.verify.recall(before.verify.learned())
    policy.patience, policy.plain_rounds = CostModel().patience, 0
    device.run(policy.patience + 10, policy)
    assert min(device.sizes[-8:]) > 1


def far_behind(read_s: float) -> CostModel:
    """A policy that has given drafting up, and is about to try it again; reading a token takes ``read_s``."""
    policy = Device(agrees=0.0).run(100)
    seen = Observation(n_rows=1, n_evaluated=0, n_tokens=1, n_read=50, read_s=50 * read_s, draft_s=0.0, compute_s=0.07)
    policy.miss(seen)
    policy.plain_rounds = policy.patience
    return policy


def test_a_vain_try_does_not_have_the_model_read_a_long_text() -> None:
    """Plain decoding takes 0.071 s a token, so that a twentieth of its time is what reading 2 tokens takes here."""
    policy = far_behind(read_s=0.0018)
    n_due = policy.patience
    assert policy.uses_model(n_due) and not policy.uses_model(4 * n_due)
    assert policy.plan(replace(state(), n_behind=4 * n_due)) is None and policy.plain_rounds == n_due
    policy.plain_rounds = 4 * n_due
    assert policy.uses_model(4 * n_due)
    planned(policy, replace(state(), n_behind=4 * n_due))


def test_control_what_costs_nothing_is_read() -> None:
    policy = far_behind(read_s=0.0)
    assert policy.uses_model(10**6)
    planned(policy, replace(state(), n_behind=10**6))


def test_how_long_reading_takes_is_known_to_the_next_session() -> None:
    later = CostModel()
    later.recall(far_behind(read_s=0.0018).learned())
    assert later.read_s == pytest.approx(0.0018)


def test_it_notices_when_the_draft_gets_worse() -> None:
    policy = Device(agrees=0.9, promises=0.9).run(100)
    worse = Device(agrees=0.05, promises=0.9)
    worse.run(200, policy)
    plain = Device()
    plain.run(200, fixed=1)
    assert worse.rate > 0.88 * plain.rate


def test_a_first_pass_bounds_what_rows_can_cost() -> None:
    cost = PassCost()
    cost.guess(64, 1.0)
    for n_rows in (5, 6, 5, 6):
        cost.add(n_rows, 0.25)
    assert cost.estimate()[64] <= 1.0 + 1e-6


def test_a_large_first_pass_does_not_make_rows_seem_cheap() -> None:
    cost = PassCost()
    cost.add(150, 3.0)
    assert cost.estimate()[64] - cost.estimate()[1] > 63 * 0.9 * 3.0 / 150


def test_three_vain_trees_do_not_condemn_a_draft() -> None:
    fresh, used = AcceptanceByDepth(), AcceptanceByDepth()
    used.forget()
    for acceptance in (fresh, used):
        for _ in range(3):
            acceptance.observe(np.array([1.0, 0.6]), 0)
    assert fresh.by_depth()[1] > 0.5 > used.by_depth()[1]


def test_steps_of_the_kernels_are_found() -> None:
    device = Device(agrees=0.8, promises=0.8, pass_s=stepped)
    device.run(300)
    assert np.mean(np.array(device.sizes[50:]) % 4 == 0) > 0.8


def test_plain_decoding_is_seen_once_where_it_might_be_better() -> None:
    device = Device()
    device.run(5)
    assert device.sizes.count(1) == 1
    behind = Device(stream_s=5.0)
    behind.run(5)
    assert 1 not in behind.sizes


def test_rows_are_free_while_the_disk_is_slower() -> None:
    prices = Device(stream_s=5.0).budget(20).prices
    assert prices.rows.max() == 0.0
    prices = Device(stream_s=0.0).budget(20).prices
    assert np.all(np.diff(prices.rows) > 0)


def test_rows_that_take_memory_from_weights_are_priced_by_what_is_then_read() -> None:
    device = Device(stream_s=5.0, agrees=0.9, promises=0.9)
    policy = device.run(20)
    before = policy.rate()
    beyond_s = np.where(np.arange(513) > 16, 1.0, 0.0)
    prices = planned(policy, state(Disk(stream_s=5.0, beyond_s=beyond_s))).prices
    rate = policy.rate()
    assert rate < before
    assert not prices.rows[:16].any() and prices.rows[16:] == pytest.approx(rate)
    device.sizes.clear()
    device.beyond_s = beyond_s * 100
    device.run(10, policy)
    assert max(device.sizes[2:]) <= 16


@pytest.mark.parametrize("stream_s, rows", [(5.0, 128), (0.9, 64), (0.0, 64)])
def test_trees_become_larger_where_passes_would_wait_for_the_disk_even_so(stream_s: float, rows: int) -> None:
    prices = Device(stream_s=stream_s).budget(20, 64, 128).prices
    assert len(prices.rows) == rows


@pytest.mark.parametrize(
    "mib_per_s, n_uncached, rows",
    [(2000, 1, 16), (2000, 60, 5), (2000, 70, 16), (200, 1, 119), (200, 40, 80), (20, 40, 128)],
)
def test_the_first_tree_is_larger_where_the_disk_is_slow(mib_per_s: float, n_uncached: int, rows: int) -> None:
    """Nothing has been measured but the disk; beside a short text a pass keeps to the rows that have memory anyway."""
    disk = Disk(byte_s=1 / (mib_per_s * 2**20), beyond_s=0.1 * np.arange(float(SIZES)))
    assert planned(CostModel(), state(disk, 64, 128, n_uncached)).max_size == rows


@pytest.mark.parametrize("n_uncached", [1, 60, 500])
def test_the_first_tree_in_memory_is_small_beside_any_text(n_uncached: int) -> None:
    assert planned(CostModel(), state(None, 64, 128, n_uncached)).max_size == 6


def test_uncached_rows_leave_fewer_free_ones() -> None:
    device = Device(stream_s=0.5)
    policy = device.run(40)
    one, nine = (int((planned(policy, device.state(n_uncached=n)).prices.rows == 0).sum()) for n in (1, 9))
    assert nine == one - 8


def test_drafting_is_free_while_the_disk_reads_ahead_and_compute_waits() -> None:
    assert Device(stream_s=5.0, ahead_s=0.6).budget(20).prices.free_nodes == pytest.approx(100, rel=0.2)
    assert Device(ahead_s=0.6).budget(20).prices.free_nodes == 0


def test_nodes_are_drafted_ahead_only_while_compute_waits() -> None:
    assert Device(stream_s=5.0).budget(20).n_ahead > ROWS
    assert Device().budget(20).n_ahead == 0


@pytest.mark.parametrize(("ahead_s", "drafts"), [(0.05, True), (5.0, False)])
def test_nodes_are_drafted_ahead_only_where_drafting_is_not_hidden_behind_the_disk(
    ahead_s: float, drafts: bool
) -> None:
    assert (Device(stream_s=5.0, ahead_s=ahead_s).budget(20).n_ahead > 0) == drafts


def chain_of(n: int, n_accepted: int) -> dict[str, Any]:
    """What is observed of a chain that promised everything."""
    shape = {"logp": np.zeros(n, np.float32), "depth": np.arange(n, dtype=np.int32)}
    return {**shape, "n_accepted": n_accepted, "n_tokens": n_accepted + 1}


def test_rows_that_chains_have_twice_bring_no_more_tokens() -> None:
    tree, chains = CostModel(), CostModel()
    for policy, rows_per_node in ((tree, 1.0), (chains, 2.0)):
        policy.observe(
            Observation(
                n_rows=11,
                n_evaluated=5,
                draft_s=0.1,
                compute_s=0.2,
                rows_per_node=rows_per_node,
                **chain_of(6, n_accepted=5),
            )
        )
    assert chains.tokens[::2][:6].tolist() == pytest.approx(tree.tokens[:6].tolist())
    assert chains.tokens[1] == 1.0 and chains.tokens[-1] == tree.tokens[-1]
    assert chains.nodes == tree.nodes / 2 and chains.rate() < tree.rate()


def test_a_long_prompt_is_not_held_against_the_draft() -> None:
    """The first pass takes long because of its tail, with a draft or without."""
    policy = CostModel()
    tree = chain_of(11, n_accepted=10)
    policy.observe(Observation(n_rows=400, n_evaluated=10, draft_s=0.05, compute_s=smooth(400), **tree))
    device = Device(agrees=0.9, promises=0.9)
    device.run(20, policy)
    assert device.sizes.count(1) <= 1


@pytest.mark.parametrize("n_cold", [0, 2])
def test_what_drafting_costs_at_first_is_forgotten_at_once(n_cold: int) -> None:
    policy = CostModel()
    tree = chain_of(11, n_accepted=3)
    n_planned = 0
    for i in range(4):
        cold, draft_s = i < n_cold, 2.0 if i < max(n_cold, 1) else 0.1
        policy.observe(Observation(n_rows=11, n_evaluated=10, cold=cold, draft_s=draft_s, compute_s=0.2, **tree))
        if (budget := policy.plan(state())) is not None:  # None: a round that is to show what plain decoding costs
            assert (budget.prices.node == 0.0) == (cold and i == 0)
            n_planned += 1
    assert n_planned == 3
    assert policy.node_s == pytest.approx(0.01) and policy.draft_s == pytest.approx(0.1)


def experts(alike: float, missing_s: float = 1.5) -> Floats:
    """Seconds of reading a mixture's experts, of which a row uses 8 in 128: n rows count for n ** ``alike``."""
    return missing_s * (1 - (1 - 8 / 128) ** (np.arange(float(SIZES)) ** alike))


@pytest.mark.parametrize("alike", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("agrees", [0.3, 0.7, 0.9])
def test_trees_on_a_mixture_are_as_large_as_their_experts_are_worth(agrees: float, alike: float) -> None:
    """As fast as the best fixed size, one row included, whatever rows have in common."""

    def device() -> Device:
        return Device(agrees, agrees, routed_s=experts(alike))

    own = device()
    own.run(120)
    fixed = {rows: device() for rows in (1, 2, 3, 4, 6, 8, 16, 32, 64)}
    for rows, other in fixed.items():
        other.run(120, fixed=rows)
    best = max(fixed, key=lambda rows: fixed[rows].rate)
    assert own.rate > 0.9 * fixed[best].rate
    assert own.rate > 0.97 * fixed[1].rate


def test_rows_that_route_alike_make_larger_trees() -> None:
    apart, alike = Device(0.9, 0.9, routed_s=experts(1.0)), Device(0.9, 0.9, routed_s=experts(0.2))
    apart.run(60)
    alike.run(60)
    assert np.mean(apart.sizes[20:]) < np.mean(alike.sizes[20:])


def test_no_first_tree_is_hidden_behind_a_slow_disk_that_reads_its_experts() -> None:
    slow = 1 / (10 * 2**20)
    assert planned(CostModel(), state(Disk(byte_s=slow, stream_s=9.0))).max_size == ROWS
    assert planned(CostModel(), state(Disk(byte_s=slow, stream_s=9.0, routed_s=experts(0.6)))).max_size == 4
