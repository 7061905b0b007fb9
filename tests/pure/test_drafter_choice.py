"""Model or text: which drafts."""

import numpy as np
import pytest

from cadcpp.policy.base import Disk, Observation, RoundState
from cadcpp.policy.drafter_choice import DrafterChoice
from cadcpp.tree.limits import TreeLimits
from cadcpp.tree.prices import SIZES
from cadcpp.tree.token_tree import TokenTree

PASS_S, ROW_S, NODE_S = 0.1, 0.01, 0.02
N = 8


def chain(p: float) -> TokenTree:
    return TokenTree.build([1] * N, range(-1, N - 1), (np.arange(N) * np.log(p)).tolist())


class World:
    """A text of which a model guesses each token with one probability, and repetition with another."""

    def __init__(self, seed: int = 0, read_s: float = 0.0) -> None:
        """``read_s`` seconds are read of experts by each row."""
        self.rng, self.choice, self.used = np.random.default_rng(seed), DrafterChoice(), list[str]()
        self.n_behind = 0  # tokens that the model would have to read
        self.disk = Disk(routed_s=read_s * np.arange(SIZES, dtype=np.float64))

    def run(self, n: int, model: float, text: float, spared: float = 0.0) -> None:
        for _ in range(n):
            state = RoundState(limits=TreeLimits(max_size=N), max_depth=N, disk=self.disk, n_behind=self.n_behind)
            budget = self.choice.plan(state)
            drafts, from_text = budget is not None, budget is not None and budget.from_text
            alternative = chain(text) if budget is not None and budget.compare else None
            p = (text if from_text else model) if drafts else 0.0
            tree = chain(max(p, 1e-9)) if drafts else TokenTree.root(0)
            right = int(np.cumprod(self.rng.random(len(tree) - 1) < p).sum())
            self.used.append(("text" if from_text else "model") if drafts else "plain")
            self.choice.observe(
                Observation(
                    n_rows=len(tree),
                    n_evaluated=len(tree) if drafts else 0,
                    n_tokens=right + 1,
                    n_accepted=right,
                    logp=tree.logp,
                    depth=tree.depth,
                    draft_s=0.001 if from_text else NODE_S * (len(tree) - 1),
                    compute_s=PASS_S + ROW_S * len(tree),
                    alternative=alternative,
                )
            )
            self.choice.judge(spared)

    def share(self, name: str, last: int) -> float:
        return self.used[-last:].count(name) / last


@pytest.mark.parametrize(("model", "text", "best"), [(0.8, 0.3, "model"), (0.6, 0.8, "text"), (0.0, 0.7, "text")])
def test_the_better_one_is_found(model: float, text: float, best: str) -> None:
    world = World()
    world.run(120, model, text)
    assert world.share(best, 80) > 0.8


def test_it_changes_its_mind() -> None:
    world = World()
    world.run(60, 0.8, 0.1)
    assert world.share("model", 40) > 0.9
    world.run(120, 0.3, 0.9)
    assert world.share("text", 60) > 0.8
    world.run(300, 0.9, 0.1)
    assert world.share("model", 60) > 0.8


@pytest.mark.parametrize("spared", [0.05, 0.5])
def test_a_model_that_brings_nothing_is_given_up_for_good(spared: float) -> None:
    world = World(read_s=0.2)
    world.run(40, 0.3, 0.1, spared)
    assert world.choice.given_up and not world.choice.uses_model(0)
    world.run(600, 0.99, 0.1, spared)
    assert world.share("model", 600) == 0


@pytest.mark.parametrize(("n_behind", "tried"), [(5000, False), (0, True)], ids=["behind", "control"])
def test_a_model_that_has_a_long_text_to_read_first_is_given_up_without_another_trial(
    n_behind: int, tried: bool
) -> None:
    world = World(read_s=0.02)
    world.run(24, 0.3, 0.1)
    assert world.used[-1] != "model" and not world.choice.given_up
    world.n_behind, world.choice.model.read_s = n_behind, 0.01
    world.run(12, 0.3, 0.1, spared=0.5)
    assert (world.share("model", 12) > 0) == tried and world.choice.given_up


@pytest.mark.parametrize(("model", "spared"), [(0.3, 0.0), (0.95, 0.15)], ids=["nothing is spared", "it pays"])
def test_control_a_model_is_kept(model: float, spared: float) -> None:
    world = World(read_s=0.02)
    world.run(200, model, 0.1, spared)
    assert not world.choice.given_up and "model" in world.used


@pytest.mark.parametrize(("spared", "given_up"), [(0.0, False), (1.0, True)])
def test_a_model_that_pays_is_given_up_where_its_memory_pays_more(spared: float, given_up: bool) -> None:
    """It brings 5.3 tokens a second, plain decoding 4.8 and without any reads 9.1."""
    world = World(read_s=0.1)
    world.run(100, 0.8, 0.1, spared)
    assert world.choice.given_up == given_up
    assert (world.share("model", 60) > 0.5) != given_up


@pytest.mark.parametrize(("read_s", "given_up"), [(0.3, True), (0.05, False)])
def test_a_model_is_given_up_at_once_where_passes_mostly_wait_for_experts(read_s: float, given_up: bool) -> None:
    """A draft saves computing, and no reading. However good it is."""
    world = World(read_s=read_s)
    world.run(5, 0.9, 0.1)
    assert world.choice.given_up == given_up
    world.run(100, 0.9, 0.1)
    assert world.choice.given_up == given_up


def test_a_few_slow_reads_do_not_end_a_model() -> None:
    world = World(read_s=0.02)
    usual = world.disk
    for _ in range(10):
        world.disk = Disk(routed_s=10 * usual.routed_s)
        world.run(3, 0.9, 0.1)
        world.disk = usual
        world.run(3, 0.9, 0.1)
    assert not world.choice.given_up


def test_a_few_bad_rounds_do_not_end_a_model() -> None:
    world = World(read_s=0.1)
    for _ in range(8):
        world.run(20, 0.8, 0.1, spared=0.0)
        world.run(5, 0.8, 0.1, spared=1.0)
    assert not world.choice.given_up


def test_rounds_in_vain_are_counted_on_in_the_next_session() -> None:
    world, later = World(read_s=0.1), World(read_s=0.1)
    while world.choice.n_vain < 5:
        world.run(1, 0.3, 0.1, spared=0.5)
    for part, before in ((later.choice, world.choice), (later.choice.model, world.choice.model)):
        part.recall(before.learned())
    later.choice.verify.recall(world.choice.verify.learned())
    later.run(6, 0.3, 0.1, spared=0.5)
    assert later.choice.given_up
    fresh = World(read_s=0.1)
    fresh.run(6, 0.3, 0.1, spared=0.5)
    assert not fresh.choice.given_up


def test_a_model_that_had_another_chance_is_given_up_again() -> None:
    world, later = World(read_s=0.2), World(read_s=0.2)
    world.run(40, 0.3, 0.1, spared=0.5)
    assert world.choice.given_up
    later.choice.recall(world.choice.learned())
    later.choice.go_on(with_model=True)
    later.run(40, 0.3, 0.1, spared=0.5)
    assert later.choice.given_up


def test_a_later_session_begins_without_it_until_it_is_time_to_try_again() -> None:
    world, later = World(read_s=0.2), DrafterChoice()
    assert later.wants_model
    world.run(40, 0.3, 0.1, spared=0.2)
    for part, before in ((later, world.choice), (later.model, world.choice.model)):
        part.recall(before.learned())
    assert not later.wants_model
    world.run(600, 0.3, 0.1, spared=0.2)
    later.model.recall(world.choice.model.learned())
    assert later.wants_model
