"""Texts that a model writes side by side."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cadcpp.chat.template import Template
from cadcpp.errors import ToolError
from cadcpp.native.context import Context
from cadcpp.native.model import Model
from cadcpp.util.prefix import common_prefix

N_SEQ = 64  # more texts at once are no faster, and take more memory
_OPENING = N_SEQ  # the sequence that holds nothing but the opening
_MARK = "QUESTION"

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Opening:
    """What texts begin with: ``prompt``, then a question that the model makes up, then ``turn`` and its reply."""

    prompt: list[int]
    turn: list[int]  # empty: there is no question


def opening(model: Model) -> Opening:
    """The chat template around a question; the token that begins a text where the model has no template."""
    if model.chat_template is not None:
        template = Template(model)
        text = template.render([{"role": "user", "content": _MARK}])
        before, _, after = text.partition(_MARK)
        if before and after:
            return _around(template.tokenize(before), template.tokenize(before + _MARK), template.tokenize(text))
    first = model.bos if model.bos >= 0 else model.eos  # which separates texts, so one begins after it
    if first < 0:
        raise ToolError(f"{model.path} names no token that begins a text: make the n-gram model from text files")
    return Opening([first], [])


def _around(before: list[int], asked: list[int], whole: list[int]) -> Opening:
    """The parts of a whole text before and after its question, in the tokens that they have there."""
    return Opening(whole[: common_prefix(before, whole)], whole[common_prefix(asked, whole) :])


class ParallelSampler:
    """N_SEQ texts, which grow by a token each with every decode; one that has ended makes room for another.

    The context has N_SEQ + 1 sequences, each with cells of its own.
    """

    def __init__(
        self, context: Context, start: Opening, ends: list[int], temperature: float, rng: np.random.Generator
    ) -> None:
        self._context, self._start, self._ends = context, start, frozenset(ends)
        self._temperature, self._rng = temperature, rng
        self._seqs = np.arange(N_SEQ, dtype=np.int32)

    def columns(self, n_steps: int) -> Iterator[Ints]:
        """``n_steps`` times a token of every sequence, [N_SEQ]; one that begins a text is given as ``~token``."""
        yield self._begin()
        for _ in range(n_steps - 1):
            yield self._step()

    def _begin(self) -> Ints:
        context, n = self._context, len(self._start.prompt)
        context.clear()
        context.batch.clear()
        context.batch.add(self._start.prompt, 0, _OPENING, _OPENING + 1, np.arange(n) == n - 1)
        context.decode()
        self._first = context.logits(1).copy()
        self._pos = np.zeros(N_SEQ, np.int32)
        self._asking = [False] * N_SEQ
        self._given: list[list[int]] = [[] for _ in self._seqs]  # tokens of the turn that are still to come
        self._token = np.array([self._restart(seq) for seq in range(N_SEQ)], np.int32)
        return ~self._token

    def _step(self) -> Ints:
        batch = self._context.batch
        batch.clear()
        batch.add(self._token, self._pos, self._seqs, self._seqs + 1, True)
        self._context.decode()
        self._pos += 1
        drawn = draw(self._context.logits(N_SEQ), self._temperature, self._rng)
        flagged = np.array([self._next(seq, int(drawn[seq])) for seq in range(N_SEQ)], np.int32)
        self._token = np.where(flagged < 0, ~flagged, flagged)
        return flagged

    def _next(self, seq: int, drawn: int) -> int:
        """What follows in a sequence: the rest of the turn, another text, the turn, or what was drawn."""
        if self._given[seq]:
            return self._given[seq].pop(0)
        if int(self._token[seq]) in self._ends:
            return ~self._restart(seq)
        if drawn in self._ends and self._asking[seq]:
            self._asking[seq] = False
            token, *self._given[seq] = self._start.turn
            return token
        return drawn

    def _restart(self, seq: int) -> int:
        """The first token of another text."""
        self._context.trim(seq, 0)
        self._context.fork(_OPENING, seq, -1, -1)  # to cells of its own, which is possible only as a whole
        self._pos[seq] = len(self._start.prompt)
        self._asking[seq] = bool(self._start.turn)
        return int(draw(self._first, self._temperature, self._rng)[0])


def draw(logits: NDArray[np.float32], temperature: float, rng: np.random.Generator) -> Ints:
    """One token for every row of ``logits``, [n, n_vocab], in proportion to exp(logit / temperature)."""
    weights = np.exp((logits - logits.max(axis=1, keepdims=True)) / np.float32(temperature))
    up_to = np.cumsum(weights, axis=1)
    below = rng.random((len(logits), 1)) * up_to[:, -1:]
    return np.asarray(np.argmax(up_to > below, axis=1), np.int32)
