"""The accept walk: the only place that decides which drafted tokens become text."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cadcpp.tree.token_tree import TokenTree

Origin = Literal["draft", "n-gram", "own"]  # who proposed an accepted row; the verifier's own next word


@dataclass(frozen=True, slots=True)
class Accepted:
    """Outcome of one walk: ``rows`` from the root down, and the token that was drawn at the last of them."""

    rows: list[int]
    bonus: int

    def tokens(self, tree: TokenTree) -> list[int]:
        """The new tokens of the text: the accepted drafts, then the bonus."""
        return [int(tree.token[row]) for row in self.rows[1:]] + [self.bonus]

    def origins(self, tree: TokenTree) -> list[Origin]:
        """Where each of the new tokens came from."""
        drafted: list[Origin] = ["n-gram" if tree.guessed[row] else "draft" for row in self.rows[1:]]
        return [*drafted, "own"]


class Walk:
    """The accept walk, a draw at a time.

    ``choose(row)`` draws the target's next token after that row. It runs once per emitted token, in
    order, so a seeded sampler draws the same numbers as plain decoding does, and the text is what the
    target alone would have written ("sample and match").
    """

    def __init__(self, tree: TokenTree, choose: Callable[[int], int]) -> None:
        self._tree, self._choose, self._below = tree, choose, tree.children()
        self._rows = [0]
        self._bonus: int | None = None

    @property
    def over(self) -> bool:
        """Whether the last token drawn is not in the tree."""
        return self._bonus is not None

    def step(self) -> int:
        """Draw one more token."""
        token = self._choose(self._rows[-1])
        row = next((r for r in self._below[self._rows[-1]] if self._tree.token[r] == token), None)
        if row is None:
            self._bonus = token
        else:
            self._rows.append(row)
        return token

    def accepted(self) -> Accepted:
        """What came of it, after one step at least; cut short, the last token drawn counts as the bonus."""
        if self._bonus is not None:
            return Accepted(self._rows, self._bonus)
        return Accepted(self._rows[:-1], int(self._tree.token[self._rows[-1]]))


def accept(tree: TokenTree, choose: Callable[[int], int]) -> Accepted:
    """The whole walk: down from the root while the target's choice is one of the children."""
    walk = Walk(tree, choose)
    while not walk.over:
        walk.step()
    return walk.accepted()
