"""The part of `Llama` that owns its text and the context that evaluates it."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cadcpp.errors import ConfigError, ContextFull
from cadcpp.llama.serial import Serial, in_turn
from cadcpp.llama.upstream import State, Upstream
from cadcpp.runtime.session import Session
from cadcpp.runtime.token_writer import TokenWriter, complete


class ContextOwner(Serial, Upstream):  # type: ignore[misc]
    """Upstream's text and its evaluation, `eval` to `load_state`, on a session's verifier.

    Whatever wants the context ends the round that is open in it first. Without a session all is upstream's.
    """

    def __init__(self) -> None:
        """Own nothing yet; upstream's constructor is run by `construct`."""
        super().__init__("this Llama")
        self._session: Session | None = None
        self._writer: TokenWriter | None = None  # whose text the context holds
        self._n_logits = 0  # tokens at the text's end that the context has the logits of

    def _replace(self, text: Sequence[int]) -> None:
        self.n_tokens = 0
        self._extend(text)

    def _extend(self, tokens: Sequence[int]) -> None:
        stop = self.n_tokens + len(tokens)
        if stop >= len(self.input_ids):
            raise ContextFull(f"a text of {stop} tokens exceeds the context of {len(self.input_ids) - 1}: raise n_ctx")
        self.input_ids[self.n_tokens : stop] = tokens
        self.n_tokens = stop

    def _keep_logits(self, position: int, rows: NDArray[np.float32]) -> None:
        self.scores[position : position + len(rows)] = rows
        self._n_logits = len(rows)

    def free(self) -> None:
        """End the open round, and free what upstream's constructor made."""
        with ExitStack() as stack:
            stack.callback(Upstream.close, self)
            if self._writer is not None:
                self._writer.end_round()

    def _take(self) -> Session:
        """The session, for something else than the text that was being written."""
        session = self._end_round()
        self._writer = None
        return session

    def _end_round(self) -> Session:
        """End the open round, and take into account what others have done to the context."""
        if self._writer is not None:
            self._writer.end_round()
        session = self._session
        assert session is not None, "without one all is upstream's"
        session.engine.rollback()
        verifier = session.engine.verifier
        n_held = verifier.context.n_held()
        if n_held != len(verifier.cache):
            verifier.cache.assume(self.input_ids[:n_held].tolist())
        return session

    @in_turn
    def reset(self) -> None:
        """Start a new text."""
        if self._session is not None:
            self._take()
        super().reset()

    @in_turn
    def eval(self, tokens: Sequence[int]) -> None:
        """Evaluate tokens after those that there are. Raises ContextFull if they do not fit."""
        if self._session is None:
            super().eval(tokens)
            return
        engine = self._take().engine
        start = self.n_tokens
        self._extend(tokens)
        try:
            complete(engine.read(self._input_ids.tolist(), self._keep_logits if self._logits_all else None))
        except BaseException:
            self.n_tokens = start
            raise
        self._n_logits = self._n_logits if self._logits_all else 1

    @in_turn
    def sample(self, *args: Any, idx: int | None = None, **kwargs: Any) -> int:
        """Sample a token from the logits at ``idx``, by default those of the last token."""
        if self._session is not None and self.n_tokens:
            self._need_logits(1 if idx is None else self.n_tokens - idx)
        return int(super().sample(*args, idx=idx, **kwargs))

    def _need_logits(self, n_back: int) -> None:
        """See to it that the context has the logits of the text's last tokens."""
        self._end_round()
        if self._n_logits == 0:
            self.eval([])
        if not 1 <= n_back <= self._n_logits:
            raise ConfigError(f"the logits of the last {self._n_logits} tokens are there, not those {n_back} back")

    # states -----------------------------------------------------------------------------------------------

    @in_turn
    def save_state(self) -> Any:
        """The text and what the model has made of it, for `load_state`."""
        if self._session is None:
            return super().save_state()
        verifier = self._end_round().engine.verifier
        verifier.cache.align([*self._input_ids.tolist(), -1])  # what was held beyond the text is nobody's
        data = bytes(verifier.context.save())
        return State(self.input_ids.copy(), self._scores.copy(), self.n_tokens, data, len(data), self._seed)

    @in_turn
    def load_state(self, state: Any) -> None:
        """Go on from where `save_state` was called. Raises ContextFull if the text does not fit."""
        if self._session is None:
            super().load_state(state)
            return
        cache = self._take().engine.verifier.cache
        self._replace(state.input_ids[: state.n_tokens])
        if self._logits_all:
            self.scores[: len(state.scores)] = state.scores
        self._n_logits, self._seed = 0, state.seed
        cache.load(state.llama_state, self._input_ids.tolist())
