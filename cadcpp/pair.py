"""Whether a draft fits its verifier: a drafted id must mean the same token to both."""

from hashlib import sha256

from cadcpp.errors import PairError
from cadcpp.native.gguf import Header, read_vocabulary


def check_pair(verifier: Header, draft: Header) -> None:
    """Raise PairError, naming the first difference, unless both models have the same vocabulary."""
    ours, theirs = read_vocabulary(verifier), read_vocabulary(draft)
    if len(ours) != len(theirs):
        _refuse(verifier, draft, f"{len(ours)} tokens against {len(theirs)}")
    for token, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        if mine != other:
            _refuse(verifier, draft, f"token {token} is {_show(mine)} against {_show(other)}")
    for name in ("bos", "eos"):
        key = f"tokenizer.ggml.{name}_token_id"
        a, b = verifier.metadata.get(key), draft.metadata.get(key)
        if None not in (a, b) and a != b:
            _refuse(verifier, draft, f"the {name} token is {a} against {b}")


def fingerprint(header: Header) -> bytes:
    """A hash of a model's vocabulary, 32 bytes: files about its tokens carry it."""
    digest = sha256()
    for token in read_vocabulary(header):
        digest.update(len(token).to_bytes(4, "little") + token)
    return digest.digest()


def _show(text: bytes) -> str:
    return repr(text.decode("utf-8", "replace"))


def _refuse(verifier: Header, draft: Header, difference: str) -> None:
    raise PairError(
        f"draft {draft.path} and verifier {verifier.path} have different vocabularies ({difference}): "
        "use a draft of the same model family"
    )
