"""What llama.cpp must not be handed: it would end the process, or write no text."""

import math
import re
import reprlib
from collections.abc import Iterator

from cadcpp.errors import ModelError
from cadcpp.native.gguf import Header, read_vocabulary

MAX_LAYERS = 512  # llama.cpp's LLAMA_MAX_LAYERS
_ALIGNMENT = 32  # ggml's TENSOR_ALIGNMENT
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")


def check_generative(header: Header) -> None:
    """Raise ModelError for a file that is no language model, or a damaged one. Reads no more than the header."""
    kind, architecture = header.metadata.get("general.type", "model"), header.architecture
    if kind != "model":
        raise ModelError(f"{header.path} is a GGUF of type {reprlib.repr(kind)}, not a language model")
    if not re.fullmatch(r"[\w.+-]{1,64}", architecture):
        raise ModelError(f"{header.path} names no architecture (general.architecture): it is not a language model")
    pooled = header.get("pooling_type", 0) not in (0, None)
    if header.get("attention.causal", True) is False or pooled or "bert" in architecture:
        raise ModelError(
            f"{header.path} is an embedding model ({architecture}), which writes no text: take a chat model"
        )
    for claim in _wrong_claims(header):
        raise ModelError(f"{header.path} claims to have {claim}: it is damaged, download or copy it again")


def check_vocabulary(header: Header) -> None:
    """Raise ModelError for a vocabulary in which two tokens have the same text."""
    texts = [text or b"[EMPTY_%d]" % token for token, text in enumerate(read_vocabulary(header))]  # llama.cpp's names
    if len(set(texts)) < len(texts):
        seen = set[bytes]()
        twice = next(text for text in texts if text in seen or seen.add(text))  # type: ignore[func-returns-value]
        raise ModelError(
            f"{header.path} has the token {reprlib.repr(twice.decode('utf-8', 'replace'))} twice: it is damaged, "
            "download or copy it again"
        )


def _wrong_claims(header: Header) -> Iterator[str]:
    n_layer = header.get("block_count")
    if not isinstance(n_layer, int) or not 1 <= n_layer <= MAX_LAYERS:
        yield f"{reprlib.repr(n_layer)} layers"
        return
    if (n_ahead := header.number("nextn_predict_layers")) > n_layer:
        yield f"{n_ahead} of {n_layer} layers for predicting more tokens"
    n_experts, n_used = header.number("expert_count"), header.number("expert_used_count")
    if n_used > n_experts or (n_experts and not n_used):
        yield f"{n_experts} experts, of which each row uses {n_used}"
    if (scaling := header.get("rope.scaling.type", "none")) not in _ROPE_SCALINGS:
        yield f"a rope scaling of {reprlib.repr(scaling)}"
    for key, value in header.metadata.items():
        if key.endswith("epsilon") and not (isinstance(value, float) and math.isfinite(value) and value >= 0):
            yield f"a {reprlib.repr(key)} of {reprlib.repr(value)}"
    for tensor in header.tensors:
        if tensor.offset % _ALIGNMENT:
            yield f"{tensor.name!r} at byte {tensor.offset}, which is no multiple of {_ALIGNMENT}"
