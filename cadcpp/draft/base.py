"""What a drafter is: what might come next, as a token tree."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cadcpp.tree.limits import DraftBudget
from cadcpp.tree.token_tree import TokenTree


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftedTree:
    """A tree and what it cost."""

    tree: TokenTree
    n_evaluated: int = 0  # nodes that the draft evaluated for it
    n_kept: int = 0  # nodes that had been evaluated ahead
    alternative: TokenTree | None = None  # what the text alone would have drafted, where the budget asks for it


class Drafter(Protocol):
    """Proposes continuations of a text."""

    @property
    def n_decodes(self) -> int:
        """Decodes of a draft model so far."""
        ...

    def behind(self, ids: Sequence[int]) -> int:
        """Tokens of a text that a draft model has yet to read."""
        ...

    def read(self, ids: Sequence[int], n_behind: int) -> int:
        """Take up a text of which much is new, as far as `grow` would otherwise have to. Gives how many tokens.

        It is `behind` by ``n_behind`` of them.
        """
        ...

    def grow(self, ids: Sequence[int], budget: DraftBudget) -> DraftedTree:
        """A tree whose root is the last of ``ids``, within the budget."""
        ...

    def ahead(self, may_go_on: Callable[[], bool], n: int) -> None:
        """Draft on below the last tree, up to ``n`` nodes, as long as ``may_go_on()``."""
        ...

    def rollback(self) -> None:
        """Leave the cache valid, whatever was interrupted."""
        ...

    def stop(self) -> None:
        """End what is under way, from another thread, with Stopped."""
        ...

    def resume(self) -> None: ...

    def close(self) -> None: ...


class WithoutModel:
    """What a drafter has to do for a context, where there is none."""

    n_decodes = 0

    def behind(self, ids: Sequence[int]) -> int:
        return 0

    def read(self, ids: Sequence[int], n_behind: int) -> int:
        return 0

    def ahead(self, may_go_on: Callable[[], bool], n: int) -> None:
        pass

    def rollback(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def resume(self) -> None:
        pass

    def close(self) -> None:
        pass


class NoDrafter(WithoutModel):
    """Plain decoding: the tree is its root."""

    def grow(self, ids: Sequence[int], budget: DraftBudget) -> DraftedTree:
        return DraftedTree(tree=TokenTree.root(ids[-1]))
