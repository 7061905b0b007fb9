"""The nodes of a tree that grows: parallel columns, parents before their children."""

from collections.abc import Sequence

import numpy as np

from cadcpp.sampling.next_tokens import NextTokens
from cadcpp.tree.prices import Floats


class NodeTable:
    """Every node found so far, by its row; row 0 is the root, the last token of the text."""

    def __init__(self, root: int) -> None:
        self.token, self.parent, self.depth = [root], [-1], [0]
        self.logp = np.zeros(1, np.float32)  # [n], cumulative
        self.open = np.array([True])  # [n], whether a node may still be evaluated
        self.surcharge = np.zeros(1)  # [n], of a node's row beside others, in tokens
        self.guessed = [False]  # whether n-grams alone proposed it
        self.known: dict[int, NextTokens] = {}  # evaluated node -> what may follow it
        self._child: dict[tuple[int, int], int] = {}  # node and the token after it -> its row

    def __len__(self) -> int:
        return len(self.token)

    def copy(self) -> "NodeTable":
        """The same nodes; what is added to one is not in the other."""
        other = NodeTable(self.token[0])
        other.token, other.parent, other.depth = self.token.copy(), self.parent.copy(), self.depth.copy()
        other.logp, other.open, other.guessed = self.logp.copy(), self.open.copy(), self.guessed.copy()
        other.surcharge = self.surcharge.copy()
        other.known, other._child = self.known.copy(), self._child.copy()
        return other

    def add(
        self,
        parent: int,
        following: NextTokens,
        surcharge: Floats | float = 0.0,
        *,
        guessed: bool = False,
        is_open: bool = True,
    ) -> None:
        """Hang tokens under ``parent``, with their cumulative log probabilities and what their rows cost more, [n]."""
        tokens, logp = following
        first, n = len(self), len(tokens)
        self.token += tokens.tolist()
        self._child.update(((parent, token), first + i) for i, token in enumerate(self.token[first:]))
        self.parent += [parent] * n
        self.depth += [self.depth[parent] + 1] * n
        self.guessed += [guessed] * n
        self.logp = np.concatenate([self.logp, logp.astype(np.float32)])
        self.open = np.concatenate([self.open, np.full(n, is_open)])
        self.surcharge = np.concatenate([self.surcharge, np.full(n, surcharge)])

    def child(self, row: int, token: int) -> int | None:
        """The node of ``token`` under ``row``, if there is one."""
        return self._child.get((row, token))

    def walk(self, path: Sequence[int]) -> list[int]:
        """Nodes along ``path`` below the root, as far as there are any."""
        found = [0]
        for token in path:
            if (row := self.child(found[-1], token)) is None:
                break
            found.append(row)
        return found[1:]

    def path(self, row: int) -> list[int]:
        """The tokens from below the root down to ``row``."""
        tokens = list[int]()
        while row:
            tokens.append(self.token[row])
            row = self.parent[row]
        return tokens[::-1]

    def position(self, row: int) -> tuple[int, int, int]:
        """Token, parent node and depth of one node."""
        return self.token[row], self.parent[row], self.depth[row]
