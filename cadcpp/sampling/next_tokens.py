"""What may follow a text, as a drafter sees it."""

import numpy as np
from numpy.typing import NDArray

NextTokens = tuple[NDArray[np.int64], NDArray[np.float32]]  # tokens [n], and the logarithms of their chances [n]
LEAST = 1e-6  # a chance below which a token is left out


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
