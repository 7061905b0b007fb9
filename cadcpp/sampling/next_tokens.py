"""What may follow a text, as a drafter sees it."""

import numpy as np
from numpy.typing import NDArray

NextTokens = tuple[NDArray[np.int64], NDArray[np.float32]]  # tokens [n], and the logarithms of their chances [n]
LEAST = 1e-6  # a chance below which a token is left out
_GROUPS = 4  # of logits, for each of the largest that are looked for


def softmax(logits: NDArray[np.float32], temperature: float) -> NextTokens:
    """Of all tokens, [n_vocab], those that are not next to impossible."""
    logits = logits / np.float32(temperature)
    logits -= logits.max()
    logits -= np.log(np.exp(logits).sum())
    tokens = np.flatnonzero(logits > np.log(LEAST))
    return tokens, logits[tokens]


def chances_of(wanted: NDArray[np.int64], following: NextTokens) -> NDArray[np.float64]:
    """The chances of some tokens, [n]; of one that was left out the least."""
    tokens, logp = following
    same = wanted[:, None] == tokens
    found = np.where(same.any(axis=1), np.exp(logp.astype(np.float64))[same.argmax(axis=1)], LEAST)
    return np.asarray(found)


def reached_by(logits: NDArray[np.float32], n: int) -> float:
    """A logit that the ``n`` largest reach, and hardly any others: the n-th largest of many groups' maxima.

    Ten times as fast as to find the n-th largest itself.
    """
    size = len(logits) // (_GROUPS * n)
    if size < 2:
        return float(np.partition(logits, -n)[-n]) if len(logits) > n else -np.inf
    maxima = logits[: len(logits) // size * size].reshape(size, -1).max(axis=0)
    return float(np.partition(maxima, -n)[-n])
