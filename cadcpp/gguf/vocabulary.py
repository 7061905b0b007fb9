"""Whether a draft fits its verifier: a drafted id must mean the same text to both."""

import reprlib
from collections.abc import Iterator
from itertools import zip_longest

from cadcpp.errors import PairError
from cadcpp.gguf.header import TOKEN_BYTE, TOKEN_NORMAL, Header, read_token_types, read_vocabulary, same_vocabulary

_Token = tuple[bytes | None, int]  # its text, None beyond the vocabulary's end, and its kind


def check_pair(verifier: Header, draft: Header) -> None:
    """Raise PairError, naming the first difference, unless both models spell text with the same ids.

    Special tokens and padding may differ: a wrong guess of them is refused like any other.
    """
    if same_vocabulary(verifier, draft):
        return
    for token, mine, other in differences(verifier, draft):
        if is_text(mine) or is_text(other):
            _refuse(verifier, draft, f"token {token} is {_show(mine)} against {_show(other)}")


def differences(verifier: Header, draft: Header) -> Iterator[tuple[int, _Token, _Token]]:
    """Every id that the two vocabularies spell differently, with what it is in either."""
    for token, (mine, other) in enumerate(zip_longest(_tokens(verifier), _tokens(draft), fillvalue=(None, 0))):
        if mine[0] != other[0]:
            yield token, mine, other


def is_text(token: _Token) -> bool:
    """Whether a token stands for text."""
    return token[0] is not None and token[1] in (TOKEN_NORMAL, TOKEN_BYTE)


def fingerprint(header: Header) -> bytes:
    """A hash of a model's vocabulary, 32 bytes: files about its tokens carry it."""
    from hashlib import sha256  # brings OpenSSL along, 4 MB that most sessions have no use for

    digest = sha256()
    for token in read_vocabulary(header):
        digest.update(len(token).to_bytes(4, "little") + token)
    return digest.digest()


def _tokens(header: Header) -> Iterator[_Token]:
    texts = read_vocabulary(header)
    types = read_token_types(header) or [TOKEN_NORMAL] * len(texts)
    return zip(texts, types, strict=False)


def _show(token: _Token) -> str:
    return "missing" if token[0] is None else reprlib.repr(token[0].decode("utf-8", "replace"))


def _refuse(verifier: Header, draft: Header, difference: str) -> None:
    sizes = f"{verifier.n_vocab} tokens against {draft.n_vocab}, " if verifier.n_vocab != draft.n_vocab else ""
    raise PairError(
        f"draft {draft.path} and verifier {verifier.path} have different vocabularies ({sizes}{difference}): "
        f"use a draft of the same model family, or make one with `cadcpp models make-draft {verifier.path}`"
    )
