"""One verify pass on its own."""

from collections.abc import Sequence

from cadcpp.native.sampler import Draw
from cadcpp.tree.token_tree import TokenTree
from cadcpp.verify.accept import Accepted, accept
from cadcpp.verify.text_state import TextState
from cadcpp.verify.verifier import Verifier


def begin(verifier: Verifier, ids: Sequence[int]) -> TextState:
    """A round on a text, up to its tree."""
    text = TextState(list(ids))
    verifier.begin(text)
    verifier.prefill(text)
    return text


def check(verifier: Verifier, ids: Sequence[int], tree: TokenTree, draw: Draw) -> Accepted:
    """A pass, the whole walk on what it gives, and what that leaves in the cache."""
    text = begin(verifier, ids)
    accepted = accept(tree, verifier.evaluate(text, tree, draw))
    verifier.commit(text, tree, accepted)
    return accepted
