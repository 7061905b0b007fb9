"""Whether a draft fits its verifier: a drafted id must mean the same token to both."""

from cadcpp.errors import PairError
from cadcpp.native.model import Model


def check_pair(verifier: Model, draft: Model) -> None:
    """Raise PairError, naming the first difference, unless both models have the same vocabulary."""
    if verifier.n_vocab != draft.n_vocab:
        _refuse(verifier, draft, f"{verifier.n_vocab} tokens against {draft.n_vocab}")
    pairs = zip(verifier.vocabulary(), draft.vocabulary(), strict=True)
    for token, (ours, theirs) in enumerate(pairs):
        if ours != theirs:
            _refuse(verifier, draft, f"token {token} is {_show(ours)} against {_show(theirs)}")
    for name in ("bos", "eos"):
        ours, theirs = getattr(verifier, name), getattr(draft, name)
        if ours != theirs:
            _refuse(verifier, draft, f"the {name} token is {ours} against {theirs}")


def _show(text: bytes) -> str:
    return repr(text.decode("utf-8", "replace"))


def _refuse(verifier: Model, draft: Model, difference: str) -> None:
    raise PairError(
        f"draft {draft.path} and verifier {verifier.path} have different vocabularies ({difference}): "
        "use a draft of the same model family"
    )
