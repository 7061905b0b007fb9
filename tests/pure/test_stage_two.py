"""What drafts for the draft: beliefs, mixtures, and what was said before."""

import numpy as np
import pytest

from cadcpp.draft.guess_rows import GuessRow, Usefulness
from cadcpp.draft.interpolation import Interpolation
from cadcpp.draft.token_recycler import TokenRecycler
from cadcpp.ngram.predictor import Guess, NgramPredictor

GUESS = Guess(np.array([5, 6]), np.array([0.6, 0.2], np.float32), 3)


def test_the_longest_match_is_recalled_and_the_latest_counts() -> None:
    said = TokenRecycler()
    said.note([1, 2, 3], 10, 0.5)
    said.note([9, 9, 3], 11, 0.7)
    assert said.recall([1, 2, 3]) == (10, 0.5, 3)
    assert said.recall([7, 7, 3]) == (11, 0.7, 1)
    assert said.recall([7]) is None


def test_memory_is_bounded_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cadcpp.draft.token_recycler._MOST", 30)
    said = TokenRecycler()
    for token in range(100):
        said.note([token, token + 1, token + 2], token + 3, 1.0)
    assert len(said._said) == 30
    assert said.recall([99, 100, 101]) == (102, 1.0, 3)
    assert said.recall([1, 2, 3]) is None


@pytest.mark.parametrize("useful", [True, False])
def test_the_chance_of_a_guess_is_learned_by_source_and_probability(useful: bool) -> None:
    usefulness = Usefulness()
    before = usefulness.chance(1, 0.55), usefulness.chance(0, 0.55)
    for _ in range(50):
        usefulness.observe(1, 0.55, useful)
    assert usefulness.chance(1, 0.55) == pytest.approx(float(useful), abs=0.05)
    assert usefulness.chance(0, 0.55) == before[1]


def test_a_ride_takes_the_likelier_guess_and_ends_where_it_gets_unlikely() -> None:
    said, usefulness, ride = TokenRecycler(), Usefulness(), GuessRow(0, [1, 2, 3])
    said.note([1, 2, 3], 9, 0.95)
    assert ride.go_on(GUESS, said, usefulness, 0.5)
    assert ride.tokens == [9] and ride.grounds == [(3, 0.95)]
    assert not ride.go_on(GUESS, said, usefulness, 0.7)
    assert ride.go_on(GUESS, said, usefulness, 0.3)
    assert ride.tokens == [9, 5] and ride.text == [1, 2, 3, 9, 5]
    assert len(ride.guesses) == 3


def test_a_mixture_still_sums_to_one() -> None:
    mixture, p_draft = Interpolation(), np.array([0.3, 0.1])
    others = mixture.left(GUESS) * (1 - p_draft.sum())
    assert mixture.mix(GUESS, p_draft).sum() + others == pytest.approx(1.0)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_weights_find_what_the_text_was_made_of(share: float) -> None:
    """Tokens are drawn from the n-grams' opinion with probability ``share``, else from the draft's."""
    rng, mixture = np.random.default_rng(1), Interpolation()
    guess, p_draft = Guess(np.array([1, 2]), np.array([0.9, 0.1], np.float32), 4), np.array([0.1, 0.9])
    found = []
    for i in range(6000):
        opinion = guess.p if rng.random() < share else p_draft
        mixture.observe(guess, p_draft, int(rng.choice([1, 2], p=opinion / opinion.sum())))
        if i > 1000:
            found.append(mixture.weight(4))
    assert np.mean(found) == pytest.approx(share, abs=0.08)
    assert mixture.weight(3) == Interpolation().weight(3)


def test_no_token_is_guessed_that_the_draft_does_not_have() -> None:
    whole, small = NgramPredictor(), NgramPredictor(n_vocab=50)
    for guesser in (whole, small):
        guesser.read([1, 2, 60, 1, 2, 40, 1, 2])
    assert set(whole.after([[]])[0].tokens.tolist()) == {40, 60}
    assert small.after([[]])[0].tokens.tolist() == [40]
