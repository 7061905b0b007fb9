"""The draft's own draft: n-grams guess what it will say, and it checks their guesses in batches."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cadcpp.draft.base import DraftedTree
from cadcpp.draft.best_first import BestFirstGrowth
from cadcpp.draft.guess_rows import GuessRow, Usefulness
from cadcpp.draft.interpolation import Interpolation
from cadcpp.draft.model_drafter import Growth, ModelDrafter, StartGrowth
from cadcpp.draft.token_recycler import LONGEST, TokenRecycler
from cadcpp.native.context import Context
from cadcpp.ngram.predictor import Guess, NgramPredictor
from cadcpp.sampling.next_tokens import NextTokens, chances_of
from cadcpp.tree.limits import DraftBudget, GrowthOptions
from cadcpp.tree.token_tree import TokenTree

_ROW = 0.25  # what a further row of a decode costs, in decodes of one row
_LEAST = 1e-30  # a probability whose logarithm can still be taken


class StagedDrafter(ModelDrafter):
    """A draft model with a draft of its own (Staged Speculative Decoding, arXiv 2308.04623, section 3.2).

    Tokens that n-grams, or the model itself a while ago, held for likely go along with the nodes that the
    model evaluates, each in its node's sequence. Where the tree has a use for them, nodes are evaluated that
    would have taken decodes of their own. The model's and the n-grams' opinion are mixed for every evaluated
    node; below these n-grams alone go on, which costs no decode.
    """

    def __init__(
        self,
        context: Context,
        never: Sequence[int],
        predictor: NgramPredictor,
        *,
        start_growth: StartGrowth = BestFirstGrowth,
        options: GrowthOptions | None = None,
    ) -> None:
        super().__init__(context, never, start_growth=start_growth, options=options)
        self._predictor, self._recycler = predictor, TokenRecycler()
        self._usefulness, self._interpolation = Usefulness(), Interpolation()
        self._said: dict[int, tuple[Guess, NDArray[np.float64]]] = {}  # evaluated node -> both opinions

    def grow(self, ids: Sequence[int], budget: DraftBudget) -> DraftedTree:
        self._learn(ids)
        self._predictor.read(ids)
        return super().grow(ids, budget)

    def rollback(self) -> None:
        self._said = {}
        super().rollback()

    def _learn(self, ids: Sequence[int]) -> None:
        """What came where both had an opinion."""
        if self._growth is None or list(ids[: len(self._text)]) != self._text:
            return
        path = ids[len(self._text) :]
        for row, token in zip([0, *self._growth.walk(path)], path, strict=False):
            if row in self._said:
                self._interpolation.observe(*self._said[row], token)

    def _renumber(self, rank: dict[int, int]) -> None:
        super()._renumber(rank)
        self._said = {rank[row]: said for row, said in self._said.items() if row in rank}

    def _evaluate(self, growth: Growth, rows: list[int]) -> None:
        if not isinstance(growth, BestFirstGrowth):
            return super()._evaluate(growth, rows)
        batch, guess_rows = self.context.batch, self._guess_rows(growth, rows)
        self._n_evaluated += len(rows)
        for guess_row in guess_rows:
            seq, position = self._seqs[guess_row.row], len(self._text) + growth.position(guess_row.row)[2]
            batch.add(guess_row.tokens, position, seq, seq + 1, True)
        self._decode()
        at, logits = len(rows), self.context.logits(len(rows) + sum(len(guess_row.tokens) for guess_row in guess_rows))
        for i, guess_row in enumerate(guess_rows):
            self._expand(growth, guess_row.row, logits[i], guess_row.guesses[0])
            self._keep(growth, guess_row, logits[at : at + len(guess_row.tokens)])
            at += len(guess_row.tokens)

    def _guess_rows(self, growth: BestFirstGrowth, rows: list[int]) -> list[GuessRow]:
        """For every row the guesses that go along. The more rows a decode has anyway, the less one saves."""
        config, batch = self.context.shape, self.context.batch
        n_free = self._n_cells - len(self._text) - len(self._seqs) - len(rows)
        room = min(config.n_outputs - len(rows), config.n_batch - batch.n, n_free)
        room = 0 if config.states else room  # a wrong guess could not be taken back
        guess_rows = [GuessRow(row, [*self._text[-LONGEST:], *growth.path(row)]) for row in rows]
        going = guess_rows
        while going:
            n_text = min(LONGEST, len(self._text))
            guesses = self._predictor.after([guess_row.text[n_text:] for guess_row in going])
            least = _ROW * len(rows) if room >= len(going) else np.inf
            go_on = [r.go_on(g, self._recycler, self._usefulness, least) for r, g in zip(going, guesses, strict=True)]
            going = [guess_row for guess_row, goes_on in zip(going, go_on, strict=True) if goes_on]
            room -= len(going)
        return guess_rows

    def _keep(self, growth: BestFirstGrowth, guess_row: GuessRow, logits: NDArray[np.float32]) -> None:
        """Count guesses as evaluated as far as they are in the tree; the cells of the others are freed."""
        row, seq = guess_row.row, self._seqs[guess_row.row]
        for token, grounds, after, guess in zip(
            guess_row.tokens, guess_row.grounds, logits, guess_row.guesses[1:], strict=True
        ):
            child = growth.child(row, token)
            self._usefulness.observe(*grounds, child is not None and growth.wants(child))
            if child is None:
                self.context.trim(seq, len(self._text) + growth.position(row)[2])
                return
            row, self._seqs[child], self._ends[seq] = child, seq, child
            self._n_evaluated += 1
            self._expand(growth, row, after, guess)

    def _expand(self, growth: BestFirstGrowth, row: int, logits: NDArray[np.float32], guess: Guess) -> None:
        def mix(following: NextTokens) -> NextTokens:
            tokens, logp = following
            best = int(np.argmax(logp))
            before = [*self._text[-LONGEST:], *growth.path(row)]
            self._recycler.note(before, int(tokens[best]), float(np.exp(logp[best])))
            return self._mix(row, following, guess) if len(guess.tokens) else following

        growth.expand([row], logits[None], mix)

    def _mix(self, row: int, following: NextTokens, guess: Guess) -> NextTokens:
        p_draft = chances_of(guess.tokens, following)
        self._said[row] = guess, p_draft
        others = ~(following[0][:, None] == guess.tokens).any(axis=1)
        logp = following[1][others] + np.log(max(self._interpolation.left(guess), _LEAST))
        mixed = np.log(np.maximum(self._interpolation.mix(guess, p_draft), _LEAST))
        return np.concatenate([following[0][others], guess.tokens]), np.concatenate([logp, mixed], dtype=np.float32)

    def _tree(self, growth: Growth) -> TokenTree:
        """With what n-grams say below the nodes that the model evaluated."""
        if not isinstance(growth, BestFirstGrowth):
            return growth.tree()
        with growth.trial():
            while rows := growth.leaves():
                for row, guess in zip(rows, self._predictor.after([growth.path(row) for row in rows]), strict=True):
                    growth.learn(row, guess.tokens, guess.p)
            return growth.tree()
