"""At temperature 1 the tokens that come through trees follow the target's own probabilities.

One pass gives the logits at every row of a real tree; thousands of seeds then walk over it with the real
`accept` and the real sampler. A chi-square test compares how often each token came, first and second. Walks that
are wrong in the ways that speculative decoders are must be told apart by the same test.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cadcpp.config import SamplingConfig
from cadcpp.models.demo import DemoPair
from cadcpp.native.sampler import Sampler
from cadcpp.tree.token_tree import TokenTree
from cadcpp.verify.accept import accept
from cadcpp.verify.verifier import Verifier
from tests.support.chi2 import p_value, survival
from tests.support.growing import budget
from tests.support.passes import check
from tests.support.prompts import prompt
from tests.support.rig import Rig

pytestmark = pytest.mark.real

N_SEEDS = 2000
ROWS = 48


@dataclass
class Case:
    """A tree after one pass: the context still holds its logits."""

    rig: Rig
    tree: TokenTree
    first: int  # row of the batch at which the tree's root stands
    p: NDArray[np.float64]  # [rows, n_vocab], the target's probabilities after every row


Walk = Callable[[TokenTree, Callable[[int], int], NDArray[np.float64], np.random.Generator], list[int]]


@pytest.fixture(scope="module", params=["story", "tips"])
def case(smollm2: Callable[[str], Path], demo: DemoPair, request: pytest.FixtureRequest) -> Iterator[Case]:
    with closing(Rig(smollm2("Q8_0"), n_ctx=256, max_rows=ROWS, n_batch=256)) as rig:
        ids = prompt(rig.model, request.param)
        tree = rig.model_drafter(demo.draft).grow(ids, budget(ROWS, 20)).tree
        check(Verifier(rig.context), ids, tree, lambda *_: -1)
        logits = rig.context.logits(ROWS).astype(np.float64)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        yield Case(rig, tree, len(ids) - 1, p / p.sum(axis=1, keepdims=True))


def right(tree: TokenTree, choose: Callable[[int], int], *_: object) -> list[int]:
    return accept(tree, choose).tokens(tree)


def by_draft(
    tree: TokenTree, choose: Callable[[int], int], p: NDArray[np.float64], rng: np.random.Generator
) -> list[int]:
    """Accepts a drafted child as often as the draft believes in it."""
    return _descend(tree, choose, lambda row, child, q: rng.random() < q)


def by_ratio(
    tree: TokenTree, choose: Callable[[int], int], p: NDArray[np.float64], rng: np.random.Generator
) -> list[int]:
    """Accepts with p/q, as if the draft's likeliest tokens had been sampled from it."""
    return _descend(tree, choose, lambda row, child, q: rng.random() < p[row, tree.token[child]] / q)


def _descend(tree: TokenTree, choose: Callable[[int], int], accepts: Callable[[int, int, float], bool]) -> list[int]:
    below, row, tokens = tree.children(), 0, list[int]()
    while True:
        q = np.exp(tree.logp[below[row]] - tree.logp[row])
        child = next((c for c, q_c in zip(below[row], q, strict=True) if accepts(row, c, float(q_c))), None)
        if child is None:
            return [*tokens, choose(row)]
        tokens.append(int(tree.token[child]))
        row = child


def texts(case: Case, walk: Walk, n_seeds: int = N_SEEDS) -> list[list[int]]:
    """What ``walk`` makes of the tree with each of many seeds."""
    found = []
    for seed in range(n_seeds):
        sampling = SamplingConfig(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=seed)
        with closing(Sampler(case.rig.model.n_vocab, sampling)) as sampler:

            def choose(row: int, sampler: Sampler = sampler) -> int:
                return sampler.draw(case.rig.context, case.first + row)

            found.append(walk(case.tree, choose, case.p, np.random.default_rng(seed)))
    return found


def first_and_second(case: Case, found: list[list[int]]) -> tuple[float, float]:
    """p-values of the first token, and of the second one given the first (where the tree has that)."""
    n_vocab = case.p.shape[1]
    first = np.bincount([text[0] for text in found], minlength=n_vocab)
    row_of = {int(case.tree.token[row]): row for row in case.tree.children()[0]}
    pairs = [(row_of[text[0]], text[1]) for text in found if text[0] in row_of and len(text) > 1]
    tables = [
        (np.bincount([token for r, token in pairs if r == row], minlength=n_vocab), case.p[row])
        for row in {r for r, _ in pairs}
    ]
    return p_value([(first, case.p[0])]), p_value(tables)


def test_chi_square_tail() -> None:
    """Against printed tables: the 5 % and 0.1 % points."""
    for dof, five, tenth in [(5, 11.070, 20.515), (10, 18.307, 29.588), (50, 67.505, 86.661)]:
        assert survival(five, dof) == pytest.approx(0.05, rel=0.02)
        assert survival(tenth, dof) == pytest.approx(0.001, rel=0.15)


def test_tokens_follow_the_target(case: Case) -> None:
    first, second = first_and_second(case, texts(case, right))
    assert first > 0.001 and second > 0.001


@pytest.mark.parametrize("walk", [by_draft, by_ratio])
def test_control_a_wrong_walk_is_told_apart(case: Case, walk: Walk) -> None:
    first, second = first_and_second(case, texts(case, walk, N_SEEDS // 2))
    assert min(first, second) < 1e-6
