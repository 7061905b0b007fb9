"""Drafting for the draft: fewer decodes for the same tree, and what the cache holds meanwhile."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cadcpp.config import SamplingConfig
from cadcpp.draft.model_drafter import ModelDrafter
from cadcpp.draft.ngram_drafter import NgramDrafter
from cadcpp.draft.staged import StagedDrafter
from cadcpp.draft.switch import Switch
from cadcpp.ngram.predictor import Guess, NgramPredictor
from cadcpp.policy.cost_model import CostModel
from cadcpp.policy.drafter_choice import DrafterChoice
from cadcpp.tree.limits import GrowthOptions
from tests.support.growing import budget
from tests.support.rig import Rig
from tests.support.trees import paths
from tests.support.vocab import random_text

BUDGET, NARROW = budget(24, 20), GrowthOptions(width=1)


class Oracle(NgramPredictor):
    """Guesses what it is told, with the probabilities that it is told."""

    def __init__(self, known: dict[tuple[int, ...], int], p: float = 0.9) -> None:
        super().__init__()
        self._known, self._p = known, p

    def after(self, paths: Sequence[Sequence[int]]) -> list[Guess]:
        found = [self._known.get(tuple(path)) for path in paths]
        return [
            Guess(np.array([t] if t else [], np.int64), np.array([self._p] if t else [], np.float32), 3) for t in found
        ]


@pytest.fixture(scope="module")
def rig(tiny: Callable[..., Path]) -> Iterator[Rig]:
    with closing(Rig(tiny("llama", type_name="Q8_0"), n_ctx=256, max_rows=32, n_batch=32)) as rig:
        yield rig


@pytest.fixture(scope="module")
def plain(rig: Rig, tiny: Callable[..., Path]) -> ModelDrafter:
    return rig.model_drafter(tiny("llama", noise=0.02))


def likeliest_chain(drafter: ModelDrafter, ids: list[int]) -> dict[tuple[int, ...], int]:
    """What the model itself would say along its best path."""
    tree = drafter.grow(ids, BUDGET).tree
    chain = [
        int(tree.token[row]) for row in range(1, len(tree)) if tree.parent[row] == row - 1 and tree.depth[row] == row
    ]
    return {tuple(chain[:n]): token for n, token in enumerate(chain)}


@pytest.mark.parametrize("seed", range(4))
def test_right_guesses_save_decodes_and_change_nothing_else(rig: Rig, plain: ModelDrafter, seed: int) -> None:
    ids = random_text(seed, 40)
    plain.context.clear()
    alone = ModelDrafter(plain.context, options=NARROW)
    known = likeliest_chain(alone, ids)
    plain.context.clear()
    staged = StagedDrafter(plain.context, [], Oracle(known), options=NARROW)
    staged._interpolation.ngram.hits[:] = 0.0  # the model's opinion only
    staged._tree = lambda growth: growth.tree()  # type: ignore[method-assign]
    tree = staged.grow(ids, BUDGET).tree
    plain.context.clear()
    expected = ModelDrafter(plain.context, options=NARROW).grow(ids, BUDGET).tree
    assert staged.n_decodes < alone.n_decodes
    assert np.exp(tree.logp).sum() >= 0.97 * np.exp(expected.logp).sum()
    found = dict(zip(paths(tree), tree.logp, strict=True))
    for path, logp in zip(paths(expected), expected.logp, strict=True):
        if path in found:
            assert found[path] == pytest.approx(logp, abs=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_wrong_guesses_leave_nothing_behind(rig: Rig, plain: ModelDrafter, seed: int) -> None:
    """A cell that was guessed in vain would be seen by whatever takes its place."""
    ids = random_text(seed, 40)
    plain.context.clear()
    expected = ModelDrafter(plain.context, options=NARROW).grow(ids, BUDGET).tree
    plain.context.clear()
    wrong = {(): 7, (7,): 8, **{tuple(path): 9 for path in paths(expected)}}
    staged = StagedDrafter(plain.context, [], Oracle(wrong), options=NARROW)
    staged._interpolation.ngram.hits[:] = 0.0
    staged._tree = lambda growth: growth.tree()  # type: ignore[method-assign]
    tree = staged.grow(ids, BUDGET).tree
    found = dict(zip(paths(tree), tree.logp, strict=True))
    shared = [path for path in paths(expected) if path in found]
    assert len(shared) >= 0.9 * len(expected)
    for path, logp in zip(paths(expected), expected.logp, strict=True):
        if path in found:
            assert found[path] == pytest.approx(logp, abs=0.02)


def test_n_grams_go_on_below_the_last_evaluated_node(rig: Rig, plain: ModelDrafter) -> None:
    ids = random_text(9, 12) * 6
    plain.context.clear()
    few = GrowthOptions(reach=1e6)  # the model evaluates the root only
    staged = StagedDrafter(plain.context, [], NgramPredictor(), options=few)
    staged._interpolation.ngram.hits[:] = 9.0  # as if they had been right nine times of ten
    tree = staged.grow(ids, BUDGET).tree
    assert staged.n_decodes == 1
    assert tree.depth.max() >= 6
    where = {path: row for row, path in enumerate(paths(tree))}
    assert tree.guessed[where[tuple(ids[:6])]] and not tree.guessed[where[tuple(ids[:1])]]


@pytest.mark.parametrize("seed", range(3))
def test_a_choice_does_not_change_the_text(rig: Rig, plain: ModelDrafter, seed: int) -> None:
    prompt = random_text(seed, 12) * 4
    sampling = SamplingConfig(seed=seed, temperature=0.3, top_k=3) if seed % 2 else SamplingConfig(temperature=0.0)
    whole = rig.generate(prompt, 100, sampling)
    plain.context.clear()
    choice, guesser = DrafterChoice(), NgramPredictor()
    engine = rig.engine(Switch(StagedDrafter(plain.context, [], guesser), NgramDrafter(guesser)), 24)
    engine.policy = choice
    with closing(rig.sampler(prompt, sampling)) as sampler:
        rounds = engine.rounds(prompt, sampler, 100)
        used, text = set(), list[int]()
        for result in rounds:
            used.add(choice.from_text)
            text += result.tokens
            choice.model = CostModel(trials=0) if len(used) == 1 and len(text) > 30 else choice.model
    assert text == whole
