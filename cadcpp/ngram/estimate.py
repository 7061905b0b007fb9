"""From texts to a Katz model."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cadcpp.errors import ConfigError
from cadcpp.ngram.discount import RELIABLE, discounts
from cadcpp.ngram.katz import Katz
from cadcpp.ngram.table import STEP, WIDTH, Table, Unsigned, history_dtype, token_dtype

MAX_VOCAB = 2**21 - 1  # three tokens make one number of 63 bits

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Lower = Callable[[Ints, Ints], Floats]  # histories and tokens -> P(token | the history without its first token)


def estimate(texts: Iterable[ArrayLike], n_vocab: int) -> Katz:
    """The model of ``texts``, each a sequence of token ids below ``n_vocab``; no n-gram spans two of them.

    A million tokens take 0.2 s. Raises ConfigError for a token outside the vocabulary, and for a vocabulary
    that is empty or larger than MAX_VOCAB.
    """
    if not 1 <= n_vocab <= MAX_VOCAB:
        raise ConfigError(f"n_vocab must be between 1 and {MAX_VOCAB}, got {n_vocab}")
    token, text = _joined(texts)
    if len(token) and not 0 <= token.min() <= token.max() < n_vocab:
        raise ConfigError(f"tokens must be between 0 and {n_vocab - 1}, got {token.min()} to {token.max()}")
    unigrams = _unigrams(token, n_vocab)
    p1 = np.exp(unigrams.astype(float))
    bigrams = _table(*_count(token, text, 2, n_vocab), n_vocab, lambda _, w: p1[w])
    trigrams = _table(*_count(token, text, 3, n_vocab), n_vocab, lambda ab, w: _after(p1, bigrams, ab % n_vocab, w))
    return Katz(unigrams, bigrams, trigrams)


def _joined(texts: Iterable[ArrayLike]) -> tuple[Ints, Ints]:
    """All tokens, and the number of the text that each is from."""
    parts = [np.empty(0, np.int64), *(np.asarray(text, np.int64) for text in texts)]
    return np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def _count(token: Ints, text: Ints, length: int, n_vocab: int) -> tuple[Ints, Ints]:
    """Every n-gram of one length as one number, rising, and how often it was seen."""
    gram = token
    for i in range(1, length):
        gram = gram[:-1] * n_vocab + token[i:]
    grams, counts = np.unique(gram[text[: len(gram)] == text[length - 1 :]], return_counts=True)
    return grams, counts.astype(np.int64)


def _unigrams(token: Ints, n_vocab: int) -> NDArray[np.float32]:
    """Log probabilities of all tokens; those never seen share what is left alike."""
    counts = np.bincount(token, minlength=n_vocab)
    never = counts == 0
    p = _discounted(counts[~never], np.zeros(1 if len(token) else 0, np.intp))
    share = np.full(n_vocab, (1 - p.sum()) / max(never.sum(), 1))
    share[~never] = p if never.any() else counts / counts.sum()
    return np.asarray(np.log(share), np.float32)


def _table(grams: Ints, counts: Ints, n_vocab: int, lower: Lower) -> Table:
    """The continuations of all histories of one length, and what is left over for others."""
    history, token = np.divmod(grams, n_vocab)
    start = np.flatnonzero(np.diff(history, prepend=-1))
    row = np.repeat(np.arange(len(start)), np.diff(start, append=len(grams)))
    p = _discounted(counts, start)
    # One token at least must be without a probability of its own, for the weight to act on.
    kept = _likeliest(p, row, start, min(WIDTH, n_vocab - 1))
    row, token = row[kept], token[kept]
    # Rounded up, so that probabilities only fall and something stays left over.
    cost = np.minimum(np.ceil(-np.log(p[kept]) / STEP), 2**16 - 1).astype(np.uint16)
    over = 1 - np.bincount(row, np.exp(-STEP * cost), len(start))
    share = 1 - np.bincount(row, lower(history[kept], token), len(start))
    return Table(
        _with_sentinel(history[start], history_dtype(n_vocab)),
        np.cumsum(np.concatenate([[0], np.bincount(row, minlength=len(start)), [0]])).astype(np.uint32),
        np.append(np.log(over / share), 0).astype(np.float32),
        np.append(token, np.zeros(WIDTH)).astype(token_dtype(n_vocab)),
        np.append(cost, np.zeros(WIDTH)).astype(np.uint16),
    )


def _with_sentinel(history: Ints, kind: np.dtype[np.unsignedinteger]) -> Unsigned:
    """The histories, and the largest number of their type."""
    histories = np.full(len(history) + 1, np.iinfo(kind).max, kind)
    histories[:-1] = history
    return histories


def _discounted(counts: Ints, start: NDArray[np.intp]) -> Floats:
    """Probabilities from counts, which are in groups that begin at ``start``, one group for each history.

    Those of a history add up to less than one: where all its counts are too large to be discounted, one more
    event counts as seen.
    """
    total = np.add.reduceat(counts, start) + (np.minimum.reduceat(counts, start) > RELIABLE)
    return np.asarray(discounts(counts) * counts / np.repeat(total, np.diff(start, append=len(counts))))


def _likeliest(p: Floats, row: Ints, start: NDArray[np.intp], width: int) -> NDArray[np.intp]:
    """Where the ``width`` largest of every row are, row by row and falling; equal ones stay in order."""
    rank = np.arange(len(p)) - start[row]
    return np.lexsort((-p, row))[rank < width]


def _after(p1: Floats, bigrams: Table, b: Ints, w: Ints) -> Floats:
    """P(w | b) of every pair."""
    n_vocab, rows = len(p1), np.arange(len(bigrams.history))
    own = np.repeat(rows, np.diff(bigrams.first)) * n_vocab + bigrams.token[:-WIDTH]
    order, row = np.argsort(own), bigrams.find(b)
    at = np.minimum(np.searchsorted(own, row * n_vocab + w, sorter=order), len(own) - 1)
    found = own[order[at]] == row * n_vocab + w
    return np.where(found, np.exp(-STEP * bigrams.cost[order[at]]), np.exp(bigrams.backoff[row]) * p1[w])
