"""The Katz model: by hand, against a naive one, and against the source of its texts."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cadcpp.errors import ConfigError
from cadcpp.ngram.discount import RELIABLE, discounts
from cadcpp.ngram.estimate import MAX_VOCAB, estimate
from cadcpp.ngram.katz import Katz
from cadcpp.ngram.table import STEP, WIDTH

Texts = list[list[int]]


@st.composite
def corpora(draw: st.DrawFn) -> tuple[Texts, int]:
    """A few texts and the size of their vocabulary; small numbers are common, so that n-grams repeat."""
    n_vocab = draw(st.sampled_from([1, 2, 3, 8, WIDTH, WIDTH + 1, 60]))
    token = st.one_of(st.integers(0, n_vocab - 1), st.integers(0, min(n_vocab - 1, 2)))
    return draw(st.lists(st.lists(token, max_size=80), max_size=3)), n_vocab


def wide_texts(n_vocab: int = 60) -> Texts:
    """After tokens 0 and 1 nearly every token was seen, some more often than others."""
    return [[0, 1, token] for token in range(n_vocab - 2) for _ in range(1 + token % 7)]


def everything(n_vocab: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every pair of tokens, and pairs with tokens that do not exist."""
    before, last = np.meshgrid(np.arange(-1, n_vocab + 1), np.arange(-1, n_vocab + 1))
    return before.ravel(), last.ravel()


def distribution(model: Katz, before: int, last: int) -> NDArray[np.float64]:
    """P(w | before, last) by w."""
    tokens, logp = model.lookup([before], [last], model.n_vocab)
    p = np.empty(model.n_vocab)
    p[tokens[0]] = np.exp(logp[0].astype(float))
    return p


class Naive:
    """Katz by the book, one probability at a time, without rounding."""

    def __init__(self, texts: Texts, n_vocab: int) -> None:
        self.n_vocab = n_vocab
        self.own: dict[tuple[int, ...], dict[int, float]] = {(): {}}
        for length in (1, 2, 3):
            grams = sorted(Counter(tuple(t[i : i + length]) for t in texts for i in range(len(t) - length + 1)).items())
            factors = discounts(np.array([n for _, n in grams], np.int64))
            seen = defaultdict[tuple[int, ...], list[tuple[int, int, float]]](list)
            for (gram, n), factor in zip(grams, factors, strict=True):
                seen[gram[:-1]].append((gram[-1], n, factor))
            self.own |= {history: self._estimate(after, length) for history, after in seen.items()}

    def _estimate(self, after: list[tuple[int, int, float]], length: int) -> dict[int, float]:
        total = sum(n for _, n, _ in after)
        if length == 1 and len(after) == self.n_vocab:
            return {w: n / total for w, n, _ in after}
        total += min(n for _, n, _ in after) > RELIABLE
        own = {w: factor * n / total for w, n, factor in after}
        width = self.n_vocab if length == 1 else min(WIDTH, self.n_vocab - 1)
        return {w: own[w] for w in sorted(own, key=lambda w: (-own[w], w))[:width]}

    def p(self, w: int, history: tuple[int, ...]) -> float:
        own = self.own.get(history, {})
        if w in own:
            return own[w]
        over = 1 - sum(own.values())
        if not history:
            return over / (self.n_vocab - len(own))
        return over / (1 - sum(self.p(seen, history[1:]) for seen in own)) * self.p(w, history[1:])


def test_a_model_by_hand() -> None:
    """Counts so few that Good-Turing fails for every length; D is what is taken off a count instead."""
    model = estimate([[0, 1, 0, 1, 0, 2]], 4)
    # Tokens: 0 three times, 1 twice, 2 once. D = 1/(1 + 2*1) = 1/3, and token 3 gets what is taken off.
    p1 = [(3 - 1 / 3) / 6, (2 - 1 / 3) / 6, (1 - 1 / 3) / 6, 3 * 1 / 3 / 6]
    # Pairs: 0 1 twice, 1 0 twice, 0 2 once. D = 1/(1 + 2*2) = 1/5.
    after_0 = [math.nan, (2 - 1 / 5) / 3, (1 - 1 / 5) / 3, math.nan]
    weight_0 = (2 * 1 / 5 / 3) / (p1[0] + p1[3])
    after_0[0], after_0[3] = weight_0 * p1[0], weight_0 * p1[3]
    weight_1 = (1 / 5 / 2) / (p1[1] + p1[2] + p1[3])
    after_1 = [(2 - 1 / 5) / 2, *(weight_1 * p for p in p1[1:])]
    # Triples: 0 1 0 twice, 1 0 1 and 1 0 2 once. D = 2/(2 + 2*1) = 1/2.
    weight_01 = (1 / 2 / 2) / (after_1[1] + after_1[2] + after_1[3])
    after_01 = [(2 - 1 / 2) / 2, *(weight_01 * p for p in after_1[1:])]
    weight_10 = (2 * 1 / 2 / 2) / (after_0[0] + after_0[3])
    after_10 = [weight_10 * after_0[0], (1 - 1 / 2) / 2, (1 - 1 / 2) / 2, weight_10 * after_0[3]]
    assert after_10 == pytest.approx([4 / 11, 1 / 4, 1 / 4, 3 / 22])  # the same in fractions, on paper
    cases = {
        (0, 1): after_01,
        (1, 0): after_10,
        (3, 0): after_0,
        (2, 1): after_1,
        (0, 2): p1,
        (3, 3): p1,
        (-1, 0): after_0,
    }
    for history, expected in cases.items():
        assert sum(expected) == pytest.approx(1)
        np.testing.assert_allclose(distribution(model, *history), expected, atol=2e-3, err_msg=str(history))


def test_a_history_that_is_too_common_to_be_discounted_leaves_one_event_over() -> None:
    model = estimate([[0, 1, 2]] * 9, 4)
    expected = Naive([[0, 1, 2]] * 9, 4)
    assert expected.p(2, (0, 1)) == 9 / 10
    np.testing.assert_allclose(distribution(model, 0, 1), [expected.p(w, (0, 1)) for w in range(4)], atol=1e-3)


@given(corpora())
def test_probabilities_are_those_of_a_naive_model(corpus: tuple[Texts, int]) -> None:
    texts, n_vocab = corpus
    model, naive = estimate(texts, n_vocab), Naive(texts, n_vocab)
    for history in sorted({tuple(t[i : i + 2]) for t in texts for i in range(len(t) - 1)} | {(0, 0)})[:8]:
        p, expected = distribution(model, *history), [naive.p(w, history) for w in range(n_vocab)]
        np.testing.assert_allclose(p, expected, atol=2e-3)


@given(corpora())
def test_every_token_is_possible_and_all_sum_to_one(corpus: tuple[Texts, int]) -> None:
    texts, n_vocab = corpus
    tokens, logp = estimate(texts, n_vocab).lookup(*everything(n_vocab), n_vocab)
    assert np.all(np.isfinite(logp))
    np.testing.assert_allclose(np.exp(logp.astype(float)).sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(np.sort(tokens, axis=1), np.broadcast_to(np.arange(n_vocab), tokens.shape))


def test_a_history_keeps_its_likeliest_continuations() -> None:
    texts, n_vocab = wide_texts(), 60
    model = estimate(texts, n_vocab)
    likeliest = sorted(range(58), key=lambda w: (-(1 + w % 7), w))[:WIDTH]
    tokens, logp = model.trigrams.continuations(model.trigrams.find(np.array([0 * n_vocab + 1])))
    assert tokens[0].tolist() == likeliest
    p = distribution(model, 0, 1)
    np.testing.assert_allclose(p[likeliest], np.exp(logp[0]), rtol=1e-6)
    assert p.sum() == pytest.approx(1, abs=1e-5)


@given(corpora(), st.integers(1, 12))
def test_the_likeliest_are_the_first_of_all(corpus: tuple[Texts, int], k: int) -> None:
    texts, n_vocab = corpus
    model = estimate([*texts, *(wide_texts() if n_vocab == 60 else [])], n_vocab)
    every, top = (model.lookup(*everything(n_vocab), n) for n in (n_vocab, k))
    for all_columns, columns in zip(every, top, strict=True):
        np.testing.assert_array_equal(columns, all_columns[:, :k])


@given(corpora(), st.integers(1, 12))
def test_a_frontier_is_looked_up_like_its_histories_one_by_one(corpus: tuple[Texts, int], k: int) -> None:
    texts, n_vocab = corpus
    model, (before, last) = estimate(texts, n_vocab), everything(n_vocab)
    tokens, logp = model.lookup(before[:99], last[:99], k)
    for row in range(len(tokens)):
        one_tokens, one_logp = model.lookup(before[row : row + 1], last[row : row + 1], k)
        np.testing.assert_array_equal(one_tokens[0], tokens[row])
        np.testing.assert_array_equal(one_logp[0], logp[row])


@given(corpora())
def test_the_likeliest_come_first_and_equals_by_token(corpus: tuple[Texts, int]) -> None:
    texts, n_vocab = corpus
    tokens, logp = estimate(texts, n_vocab).lookup(*everything(n_vocab), n_vocab)
    assert np.all(logp <= 0)
    step, tie = np.diff(logp, axis=1), np.diff(tokens, axis=1) > 0
    assert np.all((step < 0) | (step == 0) & tie)


def test_without_any_text_all_tokens_are_alike() -> None:
    tokens, logp = estimate([], 5).lookup([0], [1], 3)
    assert tokens.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(np.exp(logp), 1 / 5, rtol=1e-6)


def test_an_empty_frontier() -> None:
    tokens, logp = estimate([[0, 1, 2]], 5).lookup([], [], 3)
    assert tokens.shape == logp.shape == (0, 3)
    assert (tokens.dtype, logp.dtype) == (np.dtype(np.int32), np.dtype(np.float32))


def test_no_n_gram_spans_two_texts() -> None:
    apart, joined = estimate([[0, 1], [2, 3]], 5), estimate([[0, 1, 2, 3]], 5)
    assert distribution(apart, 0, 1)[2] == pytest.approx(np.exp(apart.unigrams[2]))
    assert distribution(joined, 0, 1)[2] > 2 * np.exp(joined.unigrams[2])


def test_own_probabilities_are_rounded_down_by_less_than_a_step() -> None:
    texts = [np.random.default_rng(0).zipf(1.5, 3000) % 20]
    model, naive = estimate(texts, 20), Naive([texts[0].tolist()], 20)
    for row, history in enumerate(model.bigrams.history[:-1].tolist()):
        tokens, logp = model.bigrams.continuations(np.array([row]))
        exact = [math.log(naive.p(w, (history,))) for w in tokens[0].tolist() if w >= 0]
        error = np.array(exact) - logp[0, : len(exact)]
        assert np.all((error > -1e-5) & (error < STEP + 1e-5))


def test_it_learns_the_source_of_its_text() -> None:
    """Bits lost against the true source are few; a model of the text reversed is the negative control."""
    rng = np.random.default_rng(0)
    source = rng.dirichlet(np.full(8, 0.3), (8, 8))  # P(w | a, b)
    text = [0, 1]
    for u in rng.random(50_000):
        text.append(min(int(np.searchsorted(source[text[-2], text[-1]].cumsum(), u)), 7))
    assert _divergence(source, estimate([text], 8)) < 0.01
    assert _divergence(source, estimate([text[::-1]], 8)) > 0.5


def _divergence(source: NDArray[np.float64], model: Katz) -> float:
    """Mean Kullback-Leibler divergence over all pairs of tokens, in nats."""
    pairs = [(a, b) for a in range(8) for b in range(8)]
    logs = [np.log(source[pair] + 1e-300) - np.log(distribution(model, *pair)) for pair in pairs]
    return float(np.mean([(source[pair] * log).sum() for pair, log in zip(pairs, logs, strict=True)]))


@pytest.mark.parametrize("n_vocab", [0, -1, MAX_VOCAB + 1])
def test_a_vocabulary_that_cannot_be(n_vocab: int) -> None:
    with pytest.raises(ConfigError, match=f"^n_vocab must be between 1 and {MAX_VOCAB}, got {n_vocab}$"):
        estimate([], n_vocab)


@pytest.mark.parametrize("token", [-1, 5])
def test_a_token_outside_the_vocabulary(token: int) -> None:
    with pytest.raises(ConfigError, match=r"^tokens must be between 0 and 4, got -?\d to \d$"):
        estimate([[1, 2], [3, token]], 5)


def test_the_largest_vocabulary_does_not_overflow() -> None:
    last = MAX_VOCAB - 1
    tokens, _ = estimate([[last, last - 1, last]], MAX_VOCAB).lookup([last], [last - 1], 1)
    assert tokens.tolist() == [[last]]
