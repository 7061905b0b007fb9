"""The accept walk: the only place that decides which drafted tokens become text."""

from collections.abc import Callable
from dataclasses import dataclass

from cadcpp.tree import TokenTree


@dataclass(frozen=True, slots=True)
class Accepted:
    """Outcome of one walk: ``rows`` from the root down, and the token that was drawn at the last of them."""

    rows: list[int]
    bonus: int

    def tokens(self, tree: TokenTree) -> list[int]:
        """The new tokens of the text: the accepted drafts, then the bonus."""
        return [int(tree.token[row]) for row in self.rows[1:]] + [self.bonus]


def accept(tree: TokenTree, choose: Callable[[int], int]) -> Accepted:
    """Walk down from the root while the target's choice is one of the children.

    ``choose(row)`` draws the target's next token after that row. It runs once per emitted token, in
    order, so a seeded sampler draws the same numbers as plain decoding does, and the text is what the
    target alone would have written ("sample and match").
    """
    below = tree.children()
    rows = [0]
    while True:
        token = choose(rows[-1])
        row = next((r for r in below[rows[-1]] if tree.token[r] == token), None)
        if row is None:
            return Accepted(rows, token)
        rows.append(row)
