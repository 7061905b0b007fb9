"""What a model file says of itself, read from its header alone."""

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import Any

from cadcpp.gguf.blocks import ahead_blocks, state_bytes
from cadcpp.gguf.ggml_base import type_name
from cadcpp.gguf.header import Header

_CACHE_BLOCK = 32  # elements of a q8_0 cache that share a scale


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """One model; sizes in bytes."""

    name: str
    architecture: str
    licence: str
    n_bytes: int
    n_files: int
    n_parameters: int
    n_layer: int
    n_ahead: int  # of the layers those that predict further tokens, which are never read
    state_bytes: int  # recurrent, of one text; 0: there is none
    n_embd: int
    head_size: int
    n_experts: int  # 0: dense
    n_ctx_train: int
    n_vocab: int
    tokenizer: str
    chat_template: bool
    types: dict[str, int]  # bytes of the matrices, by type, the most first

    @property
    def cacheable(self) -> bool:
        """Whether a q8_0 cache can hold its heads."""
        return self.head_size % _CACHE_BLOCK == 0


def read_summary(header: Header) -> ModelSummary:
    """The card of a model whose header was read."""
    facts = header.metadata
    heads = _number(header, "attention.head_count") or 1
    return ModelSummary(
        name=str(facts.get("general.name", "")),
        architecture=header.architecture,
        licence=str(facts.get("general.license", "")),
        n_bytes=header.n_bytes,
        n_files=len(header.parts),
        n_parameters=sum(prod(tensor.shape) for tensor in header.tensors),
        n_layer=_number(header, "block_count"),
        n_ahead=len(ahead_blocks(header)),
        state_bytes=state_bytes(header),
        n_embd=_number(header, "embedding_length"),
        head_size=_number(header, "attention.key_length") or _number(header, "embedding_length") // heads,
        n_experts=_number(header, "expert_count"),
        n_ctx_train=_number(header, "context_length"),
        n_vocab=header.n_vocab,
        tokenizer="/".join(
            str(facts[f"tokenizer.ggml.{k}"]) for k in ("model", "pre") if f"tokenizer.ggml.{k}" in facts
        ),
        chat_template="tokenizer.chat_template" in facts,
        types=_types(header),
    )


def _number(header: Header, key: str) -> int:
    value: Any = header.get(key, 0)
    return value if isinstance(value, int) else 0


def _types(header: Header) -> dict[str, int]:
    sizes = Counter[str]()
    for tensor in header.tensors:
        if sum(length > 1 for length in tensor.shape) > 1:
            sizes[type_name(tensor.type)] += tensor.n_bytes
    return dict(sizes.most_common())
