"""What llama.cpp must not be handed: it would end the process, or write no text."""

import math
import re
import reprlib
from collections.abc import Iterator

from cadcpp.errors import ConfigError, ModelError
from cadcpp.gguf.ggml_base import type_name
from cadcpp.gguf.header import DAMAGED, Header, Tensor, read_integers, read_vocabulary

MAX_LAYERS = 512  # llama.cpp's LLAMA_MAX_LAYERS
_ALIGNMENT = 32  # ggml's TENSOR_ALIGNMENT
_NO_WEIGHTS = frozenset("q8_1 q8_K i8 i16 i32 i64 f64".split())  # types with which no matrix can be multiplied
# Tokenizers of models that write no text. Asked for tokens they may end the process.
_NOT_FOR_WRITING = ("none", "no_vocab", "bert", "t5")
_TWICE = ("granitehybrid", "jamba")  # architectures with states of this width, or llama.cpp ends the process
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
        raise ModelError(f"{header.path} claims to have {claim}: {DAMAGED}")


def check_vocabulary(header: Header) -> None:
    """Raise ModelError for a vocabulary that is not for writing text, or in which two tokens have the same text."""
    kind = header.metadata.get("tokenizer.ggml.model")
    if kind in _NOT_FOR_WRITING:
        raise ModelError(
            f"{header.path} has a vocabulary of type {kind!r}, with which no text can be written: take a chat model"
        )
    texts = [text or b"[EMPTY_%d]" % token for token, text in enumerate(read_vocabulary(header))]  # llama.cpp's names
    if len(set(texts)) < len(texts):
        seen = set[bytes]()
        twice = next(text for text in texts if text in seen or seen.add(text))  # type: ignore[func-returns-value]
        raise ModelError(
            f"{header.path} has the token {reprlib.repr(twice.decode('utf-8', 'replace'))} twice: {DAMAGED}"
        )


def _wrong_claims(header: Header) -> Iterator[str]:
    n_layer = header.get("block_count")
    if not isinstance(n_layer, int) or not 1 <= n_layer <= MAX_LAYERS:
        yield f"{reprlib.repr(n_layer)} layers"
        return
    if (n_ahead := header.number("nextn_predict_layers")) > n_layer:
        yield f"{n_ahead} of {n_layer} layers for predicting more tokens"
    n_experts = header.number("expert_count")
    n_used = max(read_integers(header, "expert_used_count"), default=header.number("expert_used_count"))
    if not bool(n_experts) <= n_used <= n_experts:
        yield f"{n_experts} experts, of which each row uses {n_used}"
    inner = header.number("ssm.inner_size")
    if header.architecture in _TWICE and inner != 2 * header.number("embedding_length"):
        yield f"states of a width of {inner}, which is not twice the model's"
    if (scaling := header.get("rope.scaling.type", "none")) not in _ROPE_SCALINGS:
        yield f"a rope scaling of {reprlib.repr(scaling)}"
    if "" in header.metadata or "" in header.arrays:
        yield "metadata without a name"
    for key, value in header.metadata.items():
        if key.endswith("epsilon") and not (isinstance(value, float) and math.isfinite(value) and value >= 0):
            yield f"a {reprlib.repr(key)} of {reprlib.repr(value)}"
    for tensor in header.tensors:
        if not _is_usable(tensor):
            yield f"{tensor.name!r} in {type_name(tensor.type)}, with which llama.cpp cannot compute"
        if tensor.offset % _ALIGNMENT:
            yield f"{tensor.name!r} at byte {tensor.offset}, which is no multiple of {_ALIGNMENT}"


def _is_usable(tensor: Tensor) -> bool:
    """Whether the CPU has code for weights of this type in this place."""
    kind = type_name(tensor.type)
    if "norm" in tensor.name or tensor.name.endswith("bias"):
        return kind == "f32"
    return kind not in _NO_WEIGHTS or "tid2eid" in tensor.name  # DeepSeek's table of numbers


def check_context(n_ctx: int, header: Header) -> None:
    """Raises ConfigError for more tokens than the model was trained for."""
    trained = header.get("context_length", n_ctx)
    if n_ctx > trained:
        raise ConfigError(
            f"a context of {n_ctx} tokens exceeds the {trained} that {header.path} was trained for: lower --ctx"
        )
