"""Context lookup: a text that repeats itself drafts for itself."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cadcpp.util.prefix import common_prefix

RECENT = 64  # occurrences of a match that are looked at, so that a proposal takes the same time in any text


@dataclass(frozen=True, slots=True)
class Continuation:
    """What once came after the same tokens; ``count / total`` is how often it did."""

    tokens: tuple[int, ...]
    match: int  # how many tokens were the same
    count: int  # occurrences of the match that went on like this
    total: int  # occurrences of the match, RECENT at most


class ContextLookup:
    """An index of the n-grams of one text, up to ``longest`` tokens each.

    Prompt lookup decoding (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding) with an index in place
    of a search: adding or dropping a token takes 2 us, a proposal 5 to 40, however long the text is. A token
    of text takes about 0.6 kB.
    """

    def __init__(self, longest: int = 4) -> None:
        self._longest = longest
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], list[int]] = {}  # n-gram -> positions right after it, rising

    def __len__(self) -> int:
        return len(self._ids)

    def align(self, ids: Sequence[int]) -> None:
        """Make ``ids`` the text: what the two begin with stays, the rest is dropped and added."""
        n = common_prefix(self._ids, list(ids))
        self._drop(n)
        self.extend(ids[n:])

    def extend(self, tokens: Sequence[int]) -> None:
        """Add ``tokens`` to the end of the text."""
        for token in tokens:
            for gram in self._endings():
                self._after.setdefault(gram, []).append(len(self))
            self._ids.append(token)

    def propose(self, n: int, width: int, path: Sequence[int] = ()) -> list[Continuation]:
        """At most ``width`` different continuations of ``n`` tokens each, of the text with ``path`` at its end.

        Those of the longest match come first, and of these the most recent. One that reaches the end of the
        text goes on with its own beginning: a text that goes round in circles will go on so.
        """
        path, found = list(path), dict[tuple[int, ...], Continuation]()
        tail = self._ids[-self._longest :] + path
        for match in range(min(self._longest, len(tail)), 0, -1):
            seen = Counter(self._read(at, n, path) for at in self._occurrences(tail, match, len(path)))
            for tokens, count in seen.items():
                found.setdefault(tokens, Continuation(tokens, match, count, seen.total()))
            if len(found) >= width:
                break
        return list(found.values())[:width]

    def _drop(self, n: int) -> None:
        """Cut the text to ``n`` tokens."""
        while len(self) > n:
            self._ids.pop()
            for gram in self._endings():
                self._after[gram].pop()
                if not self._after[gram]:
                    del self._after[gram]

    def _endings(self) -> list[tuple[int, ...]]:
        """The n-grams that end the text."""
        return [tuple(self._ids[-length:]) for length in range(1, min(self._longest, len(self)) + 1)]

    def _occurrences(self, tail: list[int], match: int, n_path: int) -> list[int]:
        """Positions right after the last ``match`` tokens of ``tail`` wherever else they are, latest first."""
        gram = tail[-match:]
        # Of the tail only the path is not in the index.
        ends = range(len(tail) - 1, max(len(tail) - n_path, match) - 1, -1)
        start = len(self) + n_path - len(tail)
        recent = [start + end for end in ends if tail[end - match : end] == gram]
        return (recent + self._after.get(tuple(gram), [])[: -RECENT - 1 : -1])[:RECENT]

    def _read(self, at: int, n: int, path: list[int]) -> tuple[int, ...]:
        """``n`` tokens from position ``at`` of the text and the path below it."""
        tokens = [*self._ids[at : at + n], *path[max(at - len(self), 0) :]][:n]
        period = len(self) + len(path) - at
        while len(tokens) < n:
            tokens.append(tokens[-period])
        return tuple(tokens)
