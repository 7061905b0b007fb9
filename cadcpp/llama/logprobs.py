"""Log probabilities of a text's tokens, prompt included, as OpenAI's completions give them."""

from codecs import getincrementaldecoder
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def echoed_logprobs(llama: Any, ids: Sequence[int], n_hidden: int, n_top: int, shown: str) -> dict[str, Any]:
    """Of the tokens ``ids``, all of which ``llama`` has scored; the first ``n_hidden`` are not in the text ``shown``.

    The logits of a token are in the row of the one before it, so that the text's first has none.
    """
    pieces = [llama.detokenize([token], special=True) for token in ids[n_hidden:]]
    if pieces and pieces[0][:1] == b" " != shown[:1].encode():
        pieces[0] = pieces[0][1:]  # which SentencePiece puts before a text
    decoder, offsets, n = getincrementaldecoder("utf-8")("ignore"), list[int](), 0
    for piece in pieces:
        offsets.append(n)
        n += len(decoder.decode(piece))
    texts = [piece.decode("utf-8", "ignore") for piece in pieces]
    rest = range(n_hidden + 1, len(ids))
    scored = [_scored(llama, i, ids[i], texts[i - n_hidden], n_top) for i in rest]
    return {
        "tokens": texts,
        "text_offset": offsets,
        "token_logprobs": [None, *(logprob for logprob, _ in scored)],
        "top_logprobs": [None, *(top for _, top in scored)],
    }


def _text(llama: Any, token: int) -> str:
    return str(llama.detokenize([token], special=True).decode("utf-8", "ignore"))


def _scored(llama: Any, i: int, token: int, text: str, n_top: int) -> tuple[float, dict[str, float]]:
    """The log probability of the token at ``i``, and of the likeliest at its place."""
    logprobs = log_softmax(llama.scores[i - 1])
    best = np.argpartition(-logprobs, n_top)[:n_top] if 0 < n_top < len(logprobs) else np.arange(0)
    top = {_text(llama, int(each)): float(logprobs[each]) for each in sorted(best, key=lambda each: -logprobs[each])}
    top[text] = float(logprobs[token])
    return float(logprobs[token]), top


def token_probabilities(llama: Any, ids: Sequence[int], n_before: int, n_top: int) -> list[dict[str, Any]]:
    """Of tokens that ``llama`` has written behind ``n_before`` others, as llama-server's completions give them."""
    first = llama.last_usage["prompt_tokens"] + n_before - 1
    return [_probability(llama, first + i, token, n_top) for i, token in enumerate(ids)]


def _probability(llama: Any, row: int, token: int, n_top: int) -> dict[str, Any]:
    logprobs = log_softmax(llama.scores[row])
    best = sorted(np.argpartition(-logprobs, n_top)[:n_top], key=lambda each: -logprobs[each])
    top = [_entry(llama, int(each), float(logprobs[each])) for each in best]
    return _entry(llama, token, float(logprobs[token])) | {"top_logprobs": top}


def _entry(llama: Any, token: int, logprob: float) -> dict[str, Any]:
    piece = llama.detokenize([token], special=True)
    return {"id": token, "token": piece.decode("utf-8", "replace"), "bytes": list(piece), "logprob": logprob}


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log probabilities of logits, shape [n_vocab]."""
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()), np.float32)
