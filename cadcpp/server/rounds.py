"""Rounds as the page shows them: which words were drafted, the tree, and what each stage took."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cadcpp.llama.llama import Llama
from cadcpp.runtime.round import Round

_TIMES = ("draft_seconds", "verify_seconds", "stall_seconds", "read_bytes")


class Rounds:
    """Collects the rounds of one text."""

    def __init__(self, llama: Llama) -> None:
        self._llama = llama
        self._told: list[dict[str, Any]] = []
        self._before = dict.fromkeys(_TIMES, 0.0)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, rounds are collected; whoever else watched them still does."""
        before = self._llama.on_round

        def tell(result: Round) -> None:
            self._told.append(self._round(result))
            if before is not None:
                before(result)

        self._llama.on_round = tell
        try:
            yield
        finally:
            self._llama.on_round = before

    def take(self) -> list[dict[str, Any]]:
        """Those since the last time."""
        told, self._told = self._told, []
        return told

    def _round(self, result: Round) -> dict[str, Any]:
        tree, stats = result.tree, self._llama.last_stats
        now = {name: getattr(stats, name) for name in _TIMES}
        spent = {name: now[name] - self._before[name] for name in _TIMES}
        self._before = now
        return {
            "words": [[self._word(token), origin] for token, origin in self._words(result)],
            "tree": {
                "parent": tree.parent.tolist(),
                "word": [self._word(int(token)) for token in tree.token],
                "accepted": result.accepted.rows,
            },
            **spent,
        }

    def _words(self, result: Round) -> list[tuple[int, str]]:
        return list(zip(result.tokens, result.accepted.origins(result.tree), strict=False))

    def _word(self, token: int) -> str:
        return self._llama.detokenize([token]).decode("utf-8", "replace")
