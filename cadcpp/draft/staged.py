"""The draft's own draft: n-grams guess what it will say, and it checks their guesses in batches."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cadcpp.draft.best_first import Growth
from cadcpp.draft.branch_pacer import PacedGrowth
from cadcpp.draft.guess_rows import Ride, Use
from cadcpp.draft.interpolation import Mixture
from cadcpp.draft.model_drafter import ModelDrafter
from cadcpp.draft.token_recycler import LONGEST, Recycler
from cadcpp.native.context import Context
from cadcpp.ngram.predictor import Guess, Guesser
from cadcpp.tree.limits import TreeConfig
from cadcpp.tree.token_tree import TokenTree

_ROW = 0.25  # what a further row of a decode costs, in decodes of one row
_LEAST = 1e-30  # a probability whose logarithm can still be taken


class StagedDrafter(ModelDrafter):
    """A draft model with a draft of its own (Staged Speculative Decoding, arXiv 2308.04623, section 3.2).

    Tokens that n-grams, or the model itself a while ago, held for likely ride along with the nodes that the
    model evaluates, each in its node's sequence. Where the tree has a use for them, nodes are evaluated that
    would have taken decodes of their own. The model's and the n-grams' opinion are mixed for every evaluated
    node; below these n-grams alone go on, which costs no decode.
    """

    def __init__(self, context: Context, never: Sequence[int], guesser: Guesser) -> None:
        super().__init__(context, never)
        self._guesser, self._recycler = guesser, Recycler()
        self._use, self._mixture = Use(), Mixture()
        self._said: dict[int, tuple[Guess, NDArray[np.float64]]] = {}  # evaluated node -> both opinions

    def grow(self, ids: Sequence[int], config: TreeConfig, max_depth: int) -> TokenTree:
        self._learn(ids)
        self._guesser.read(ids)
        return super().grow(ids, config, max_depth)

    def settle(self) -> None:
        self._said = {}
        super().settle()

    def _learn(self, ids: Sequence[int]) -> None:
        """What came where both had an opinion."""
        if self._growth is None or list(ids[: len(self._text)]) != self._text:
            return
        path = ids[len(self._text) :]
        for row, token in zip([0, *self._growth.walk(path)], path, strict=False):
            if row in self._said:
                self._mixture.observe(*self._said[row], token)

    def _renumber(self, rank: dict[int, int]) -> None:
        super()._renumber(rank)
        self._said = {rank[row]: said for row, said in self._said.items() if row in rank}

    def _evaluate(self, growth: Growth | PacedGrowth, rows: list[int]) -> None:
        if isinstance(growth, PacedGrowth):
            return super()._evaluate(growth, rows)
        batch, rides = self.context.batch, self._rides(growth, rows)
        self.n_evaluated += len(rows)
        for ride in rides:
            seq, position = self._seqs[ride.row], len(self._text) + growth.position(ride.row)[2]
            batch.add(ride.tokens, position, seq, seq + 1, True)
        self._decode()
        at, logits = len(rows), self.context.logits(len(rows) + sum(len(ride.tokens) for ride in rides))
        for i, ride in enumerate(rides):
            self._expand(growth, ride.row, logits[i], ride.guesses[0])
            self._keep(growth, ride, logits[at : at + len(ride.tokens)])
            at += len(ride.tokens)

    def _rides(self, growth: Growth, rows: list[int]) -> list[Ride]:
        """For every row the guesses that go along. The more rows a decode has anyway, the less one saves."""
        config, batch = self.context.config, self.context.batch
        n_free = self._n_cells - len(self._text) - len(self._seqs) - len(rows)
        room = min(config.n_outputs - len(rows), config.n_batch - batch.n, n_free)
        rides = [Ride(row, [*self._text[-LONGEST:], *growth.path(row)]) for row in rows]
        going = rides
        while going:
            n_text = min(LONGEST, len(self._text))
            guesses = self._guesser.after([ride.text[n_text:] for ride in going])
            least = _ROW * len(rows) if room >= len(going) else np.inf
            go_on = [r.go_on(g, self._recycler, self._use, least) for r, g in zip(going, guesses, strict=True)]
            going = [ride for ride, goes_on in zip(going, go_on, strict=True) if goes_on]
            room -= len(going)
        return rides

    def _keep(self, growth: Growth, ride: Ride, logits: NDArray[np.float32]) -> None:
        """Count guesses as evaluated as far as they are in the tree; the cells of the others are freed."""
        row, seq = ride.row, self._seqs[ride.row]
        for token, grounds, after, guess in zip(ride.tokens, ride.grounds, logits, ride.guesses[1:], strict=True):
            child = growth.child(row, token)
            self._use.observe(*grounds, child is not None and growth.wants(child))
            if child is None:
                self.context.trim(seq, len(self._text) + growth.position(row)[2])
                return
            row, self._seqs[child], self._ends[seq] = child, seq, child
            self.n_evaluated += 1
            self._expand(growth, row, after, guess)

    def _expand(self, growth: Growth, row: int, logits: NDArray[np.float32], guess: Guess) -> None:
        def mix(logp: NDArray[np.float32]) -> None:
            best = int(np.argmax(logp))
            self._recycler.note([*self._text[-LONGEST:], *growth.path(row)], best, float(np.exp(logp[best])))
            if len(guess.tokens):
                self._mix(row, logp, guess)

        growth.expand([row], logits[None], mix)

    def _mix(self, row: int, logp: NDArray[np.float32], guess: Guess) -> None:
        p_draft = np.exp(logp[guess.tokens].astype(np.float64))
        self._said[row] = guess, p_draft
        logp += np.log(max(self._mixture.left(guess), _LEAST))
        logp[guess.tokens] = np.log(np.maximum(self._mixture.mix(guess, p_draft), _LEAST))

    def _tree(self, growth: Growth | PacedGrowth) -> TokenTree:
        """With what n-grams say below the nodes that the model evaluated."""
        if isinstance(growth, PacedGrowth):
            return growth.tree()
        with growth.trial():
            while rows := growth.leaves():
                for row, guess in zip(rows, self._guesser.after([growth.path(row) for row in rows]), strict=True):
                    growth.learn(row, guess.tokens, guess.p)
            return growth.tree()
