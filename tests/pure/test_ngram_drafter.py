"""Drafting from what the text said before."""

import numpy as np
import pytest

from cadcpp.draft.ngram_drafter import NgramDrafter
from cadcpp.ngram.estimate import estimate
from cadcpp.ngram.predictor import MatchReliability, NgramPredictor
from cadcpp.ngram.prompt_lookup import Continuation
from cadcpp.tree.token_tree import TokenTree
from tests.support.growing import budget
from tests.support.trees import paths

MAX_SIZE = 12
PHRASE = [11, 12, 13, 14, 15, 16, 17, 18]


def random_text(seed: int, n: int, n_vocab: int = 1000) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(100, n_vocab, n)]


def grow(drafter: NgramDrafter, ids: list[int], max_size: int = MAX_SIZE, max_depth: int = 20) -> TokenTree:
    return drafter.grow(ids, budget(max_size, max_depth)).tree


def test_a_phrase_that_comes_again_is_drafted() -> None:
    tree = grow(NgramDrafter(NgramPredictor()), [*PHRASE, *random_text(1, 30), *PHRASE[:4]])
    chain = tree.token[: len(PHRASE) - 3].tolist()
    assert chain == PHRASE[3:]


def test_nothing_is_drafted_where_nothing_repeats() -> None:
    assert len(grow(NgramDrafter(NgramPredictor()), list(range(50)))) == 1


def test_two_continuations_make_two_branches() -> None:
    ids = [1, 2, 3, 50, 51, *random_text(1, 9), 1, 2, 3, 60, 61, *random_text(2, 9), 1, 2, 3]
    tree = grow(NgramDrafter(NgramPredictor()), ids, max_depth=2)
    assert set(tree.token[tree.depth == 1].tolist()) == {50, 60}


def test_a_text_in_a_circle_goes_on_in_it() -> None:
    tree = grow(NgramDrafter(NgramPredictor()), PHRASE[:3] * 6, 10)
    assert tree.token[:10].tolist() == [13, *(PHRASE[:3] * 3)]


def test_limits_are_kept() -> None:
    ids = PHRASE * 5
    assert len(grow(NgramDrafter(NgramPredictor()), ids, 1)) == 1
    assert len(grow(NgramDrafter(NgramPredictor()), ids, max_depth=0)) == 1
    assert grow(NgramDrafter(NgramPredictor()), ids, max_depth=3).depth.max() == 3
    assert 13 not in grow(NgramDrafter(NgramPredictor(), [13]), ids).token[1:]


def test_it_follows_a_text_that_changes() -> None:
    """What it says of a text does not depend on what it was asked before, but for what it has learned."""
    copier, ids = NgramDrafter(NgramPredictor()), [*PHRASE, 5, 6, *PHRASE[:3]]
    first = grow(copier, ids).token.tolist()
    grow(copier, [*ids[:4], *random_text(3, 20)])
    assert grow(copier, ids).token.tolist() == first


@pytest.mark.parametrize(("repeats", "match", "low", "high"), [(True, 6, 0.8, 1.0), (False, 1, 0.0, 0.3)])
def test_belief_follows_the_text(repeats: bool, match: int, low: float, high: float) -> None:
    text = random_text(1, 40) * 10 if repeats else random_text(1, 400, n_vocab=120)
    guesser = NgramPredictor()
    guesser.read(text)
    assert low <= guesser._belief.right.at(match) <= high


def test_probabilities_of_all_that_was_found_sum_to_less_than_one() -> None:
    belief = MatchReliability()
    belief.right.hits[:] = 0.9 * belief.right.seen
    found = [Continuation((1,), 3, 2, 3), Continuation((2,), 3, 1, 3), Continuation((3,), 2, 4, 4)]
    p = belief.probabilities(found)
    np.testing.assert_allclose(p, [0.6, 0.3, 0.09], rtol=1e-5)


def test_n_grams_speak_where_the_text_is_silent() -> None:
    katz = estimate([[1, 2, 3, 4, 5, 6, 7, 8] * 50], n_vocab=64)
    tree = grow(NgramDrafter(NgramPredictor(katz)), [20, 1, 2])
    assert tree.token[:6].tolist() == [2, 3, 4, 5, 6, 7]
    assert len(grow(NgramDrafter(NgramPredictor()), [20, 1, 2])) == 1


def test_the_text_goes_before_n_grams() -> None:
    katz = estimate([[1, 2, 3, 4] * 50], n_vocab=64)
    ids = [1, 2, 9, 10, 11, 12] * 6 + [1, 2]
    tree = grow(NgramDrafter(NgramPredictor(katz)), ids, max_depth=1)
    assert tree.token[1:3].tolist() == [9, 3]


def test_what_both_say_is_one_node() -> None:
    katz = estimate([PHRASE * 50], n_vocab=64)
    tree = grow(NgramDrafter(NgramPredictor(katz)), PHRASE * 5)
    assert len(tree) == len(set(paths(tree)))
    below = [sum(np.exp(tree.logp[row]) for row in rows) for rows in tree.children() if rows]
    assert max(below) <= 1.0 + 1e-5
