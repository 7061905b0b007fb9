"""The token tree: parallel arrays, no engine inside."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TokenTree:
    """Candidate continuations of one text.

    Row 0 is the text's last token; every other row hangs under a smaller one. Rows 1, 2, ... are the
    most likely chain, so that what a verify pass accepts of it already lies in position order in the
    KV cache. Siblings are in order of falling probability.
    """

    token: NDArray[np.int32]  # [n]
    parent: NDArray[np.int32]  # [n], -1 for the root
    depth: NDArray[np.int32]  # [n], root 0
    logp: NDArray[np.float32]  # [n], cumulative natural log probability under the draft, root 0
    guessed: NDArray[np.bool_]  # [n], whether n-grams alone proposed it

    @classmethod
    def root(cls, token: int) -> "TokenTree":
        """The tree of plain decoding: nothing but the last token."""
        return cls(np.array([token], np.int32), *_ROOT)

    @classmethod
    def build(
        cls, token: Sequence[int], parent: Sequence[int], logp: Sequence[float], guessed: Sequence[bool] = ()
    ) -> "TokenTree":
        """A tree from rows in any order that has parents before children; rows are put in canonical order."""
        order = _canonical_order(parent, logp)
        rank = {old: new for new, old in enumerate(order)}
        new_parent = [rank[parent[old]] if parent[old] >= 0 else -1 for old in order]
        depth = [0] * len(order)
        for row in range(1, len(order)):
            depth[row] = depth[new_parent[row]] + 1
        return cls(
            np.array([token[old] for old in order], np.int32),
            np.array(new_parent, np.int32),
            np.array(depth, np.int32),
            np.array([logp[old] for old in order], np.float32),
            np.array([bool(guessed) and guessed[old] for old in order], np.bool_),
        )

    def __len__(self) -> int:
        return len(self.token)

    def children(self) -> list[list[int]]:
        """Rows of the children of every row, likeliest first."""
        below: list[list[int]] = [[] for _ in range(len(self))]
        for row in range(1, len(self)):
            below[self.parent[row]].append(row)
        return below

    def ancestors(self, row: int) -> list[int]:
        """Rows from the root down to ``row``, both included."""
        path = []
        while row >= 0:
            path.append(row)
            row = int(self.parent[row])
        return path[::-1]

    def reach(self, row: int) -> int:
        """Depth of the deepest branch through ``row``."""
        deepest = int(self.depth[row])
        under = {row}
        for child in range(row + 1, len(self)):
            if int(self.parent[child]) in under:
                under.add(child)
                deepest = max(deepest, int(self.depth[child]))
        return deepest

    def leaves(self) -> list[int]:
        """Rows without children, depth first: leaf i is KV sequence i, and leaf 0 ends the likeliest chain."""
        below = self.children()
        return [row for row in _depth_first(below) if not below[row]]

    def spans(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """For every row the range [lo, hi) of leaves under it, which is its set of KV sequences."""
        below, n = self.children(), len(self)
        size = [0] * n
        for row in range(n - 1, -1, -1):
            size[row] = size[row] or 1
            if row:
                size[self.parent[row]] += size[row]
        lo = [0] * n
        for row in range(n):
            start = lo[row]
            for child in below[row]:
                lo[child] = start
                start += size[child]
        return np.array(lo, np.int32), np.array(lo, np.int32) + np.array(size, np.int32)

    def trim(self, n: int, max_depth: int | None = None) -> "TokenTree":
        """The likeliest ``n`` rows (at least the root), no deeper than ``max_depth``; still a tree."""
        rows = [r for r in range(len(self)) if max_depth is None or self.depth[r] <= max_depth]
        # A child is never likelier than its parent; ties go to the smaller row, which is the parent.
        return self.part(sorted(sorted(rows, key=lambda r: (-self.logp[r], r))[: max(n, 1)]))

    def part(self, rows: Sequence[int]) -> "TokenTree":
        """Some rows alone, in rising order; with each there must be its parent."""
        keep, rank = list(rows), {old: new for new, old in enumerate(rows)}
        parent = [rank.get(int(self.parent[r]), -1) for r in keep]
        return TokenTree.build(self.token[keep].tolist(), parent, self.logp[keep].tolist(), self.guessed[keep].tolist())

    def draw(self, text: Callable[[int], str] = str, accepted: Sequence[int] = ()) -> str:
        """The tree for people: a line per row with its probability; accepted rows carry a star."""
        below, marked, lines = self.children(), set(accepted), []
        for row in _depth_first(below):
            star = "*" if row in marked else " "
            label = f"{text(int(self.token[row]))!r}" if text is not str else str(self.token[row])
            lines.append(f"{star} {'  ' * self.depth[row]}{label}  {np.exp(self.logp[row]):.3f}")
        return "\n".join(lines)


def _depth_first(below: list[list[int]]) -> Iterator[int]:
    stack = [0]
    while stack:
        row = stack.pop()
        yield row
        stack.extend(reversed(below[row]))


def _canonical_order(parent: Sequence[int], logp: Sequence[float]) -> list[int]:
    """Old rows in new order: the likeliest chain first, then the rest by falling probability."""
    best: dict[int, int] = {}
    for row in range(1, len(parent)):
        up = parent[row]
        if up not in best or logp[row] > logp[best[up]]:
            best[up] = row
    chain = [0]
    while chain[-1] in best:
        chain.append(best[chain[-1]])
    on_chain = set(chain)
    rest = [row for row in range(len(parent)) if row not in on_chain]
    return chain + sorted(rest, key=lambda row: (-logp[row], row))


# Parents, depth, cumulative log probabilities and guesses of a tree that is its root; nobody writes into a tree.
_ROOT = np.full(1, -1, np.int32), np.zeros(1, np.int32), np.zeros(1, np.float32), np.zeros(1, np.bool_)
