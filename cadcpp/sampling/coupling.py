"""Drafting in the knowledge of the noise that the verifier will draw with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cadcpp.sampling.gumbel import rough_gumbel
from cadcpp.sampling.next_tokens import LEAST, NextTokens, reached_by

_MOST = 1024  # tokens that are looked at where no top-k says how many
_TINY = 1e-300
_BEYOND = 3  # spreads by which a token may miss min-p, and times top-k by which it may miss that, and still be drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Coupling:
    """How the tokens after a text will be drawn: the argmax of filtered logits / ``temperature`` plus Gumbel noise.

    Draft and verifier thus share their randomness (Daliri, Musco and Suresh, arXiv 2408.07978, for chains): where
    their logits are the same, so are their tokens. What is unknown is by how much the logits differ. It is taken to
    be noise of the same kind, of scale ``spread``: a token's chance to win is then a softmax of the draft's perturbed
    logits, without temperature of its logits. That a token passes the verifier's filters is as likely as logistic
    noise of that scale leaves it on the right side of the draft's.
    """

    seed: int
    temperature: float = 1.0  # above 0
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 0
    position: int = 0  # of the next token of the text
    recent: tuple[int, ...] = ()  # the text's end, as far as it is penalised

    def after(self, ids: Sequence[int]) -> "Coupling":
        """The same after a text."""
        n = self.repeat_last_n if self.repeat_penalty != 1.0 else 0
        return replace(self, position=len(ids), recent=tuple(ids[-n:]) if n else ())

    def noise(self, depth: int, tokens: NDArray[np.integer]) -> NDArray[np.float64]:
        """The noise of tokens, [n], ``depth`` tokens after the text, in logits."""
        return self.temperature * rough_gumbel(self.seed, self.position + depth, tokens)

    def next_tokens(self, logits: NDArray[np.float32], path: Sequence[int], spread: float) -> NextTokens:
        """The tokens that may be drawn after the text and ``path``, given the draft's logits there, [n_vocab]."""
        if self.recent:
            logits = self._penalised(logits, path)
        tokens = self._candidates(logits, spread)
        values = logits[tokens].astype(np.float64)
        passes = -np.logaddexp(0.0, (self._threshold(values) - values) / spread)
        scores = (values + self.noise(len(path), tokens)) / spread
        order = np.argsort(-scores)
        chances = _race(scores[order], passes[order])
        likely = chances > LEAST
        return tokens[order[likely]], np.log(chances[likely]).astype(np.float32)

    def reweighted(self, tokens: NDArray[np.int64], p: NDArray[np.float32], depth: int) -> NDArray[np.float64]:
        """Given the noise, the chances of some tokens, [n], of which without it no more than that is known, [n].

        All others count as one that has the usual noise.
        """
        weights = p * np.exp(rough_gumbel(self.seed, self.position + depth, tokens))
        rest = max(1.0 - float(p.sum()), 0.0) * np.exp(np.euler_gamma)
        return np.asarray(weights / max(float(weights.sum()) + rest, _TINY))

    def _penalised(self, logits: NDArray[np.float32], path: Sequence[int]) -> NDArray[np.float32]:
        """As llama.cpp does it: logits above 0 are divided, others multiplied."""
        said = np.unique([*self.recent, *path][-self.repeat_last_n :])
        said = said[said < len(logits)]  # of some tokens a draft may know nothing
        logits = logits.copy()
        values = logits[said]
        logits[said] = np.where(values > 0, values / self.repeat_penalty, values * self.repeat_penalty)
        return logits

    def _candidates(self, logits: NDArray[np.float32], spread: float) -> NDArray[np.int64]:
        """Tokens that may win, the likeliest first."""
        n = min(_BEYOND * self.top_k, _MOST) if self.top_k > 0 else _MOST
        least = reached_by(logits, n)
        if self.min_p > 0:
            least = max(least, float(logits.max() + np.log(self.min_p) - _BEYOND * spread))
        tokens = np.flatnonzero(logits >= np.float32(least))
        return np.asarray(tokens[np.argsort(-logits[tokens], kind="stable")][:n])

    def _threshold(self, values: NDArray[np.float64]) -> float:
        """The logit that lies between what the filters leave of the draft's likeliest tokens, [n], and the rest."""
        n = min(self.top_k, len(values)) if self.top_k > 0 else len(values)
        if self.top_p < 1:
            p = np.cumsum(np.exp(values[:n] - values[0]))
            n = min(int(np.searchsorted(p, self.top_p * p[-1])) + 1, n)
        edge = (values[n - 1] + values[n]) / 2 if n < len(values) else -np.inf
        return float(max(edge, values[0] + np.log(self.min_p) if self.min_p > 0 else -np.inf))


def _race(scores: NDArray[np.float64], passes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The chance of each to be the best of those that pass, given falling scores, [n], and logarithms of passing.

    One wins if it passes, beats all below it, and none above it wins. Where all pass this is the softmax of the
    scores; where scores are far apart it is the first that passes.
    """
    there = scores + passes
    below = np.append(np.logaddexp.accumulate(there[:0:-1])[::-1], -np.inf)
    wins = np.exp(there - np.logaddexp(scores, below))
    return np.asarray(wins * np.cumprod(np.append(1.0, 1.0 - wins[:-1])))
