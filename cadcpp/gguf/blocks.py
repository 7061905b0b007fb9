"""What each block of a model keeps from token to token: keys and values, a recurrent state, both or nothing."""

import re

from cadcpp.gguf.header import Header, Tensor, once, read_integers

_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)")
_STATE = ("ssm_", "shortconv", "time_mix_")  # names of what only blocks with a recurrent state have
_ATTENTION = ("attn_output",)
_F32 = 4


def block_of(tensor: Tensor) -> int | None:
    """The number of the block that a tensor belongs to."""
    match = _BLOCK.match(tensor.name)
    return int(match[1]) if match else None


@once
def ahead_blocks(header: Header) -> frozenset[int]:
    """Blocks that predict tokens after the next one, at a model's end: llama.cpp neither loads nor computes them."""
    first = header.number("block_count") - header.number("nextn_predict_layers")
    return frozenset(
        block
        for tensor in header.tensors
        if ".nextn." in tensor.name and (block := block_of(tensor)) is not None and block >= first
    )


@once
def state_blocks(header: Header) -> frozenset[int]:
    """Blocks with a recurrent state."""
    return _with(header, _STATE) - ahead_blocks(header)


@once
def cache_heads(header: Header) -> dict[int, int]:
    """Heads for keys and values, by the blocks that keep such."""
    n_blocks, states = header.number("block_count", 1), state_blocks(header)
    each = read_integers(header, "attention.head_count_kv")
    n_head = header.number("attention.head_count_kv") or header.number("attention.head_count") or 1
    kept = _with(header, _ATTENTION) if states else frozenset(range(n_blocks))
    return {i: each[i] if i < len(each) else n_head for i in sorted(kept - ahead_blocks(header)) if i < n_blocks}


@once
def state_bytes(header: Header) -> int:
    """Of the recurrent states of one sequence; 0 for a model that has none."""
    return len(state_blocks(header)) * sum(block_state_bytes(header))


@once
def state_parts(header: Header) -> frozenset[str]:
    """What blocks with a state have for it, such as ``ssm_in``."""
    found = (_BLOCK.match(tensor.name) for tensor in header.tensors)
    return frozenset(match[2] for match in found if match and _is_any(match[2], _STATE))


def block_state_bytes(header: Header) -> tuple[int, int]:
    """Of one sequence's state in one block: its convolution's last inputs, and the state proper."""
    return _F32 * _convolution(header), _F32 * _recurrence(header)


def channels(header: Header) -> int:
    """Numbers of a row that a recurrent block's convolution sees."""
    return header.number("ssm.inner_size") + 2 * header.number("ssm.group_count") * header.number("ssm.state_size")


def _with(header: Header, parts: tuple[str, ...]) -> frozenset[int]:
    found = (_BLOCK.match(tensor.name) for tensor in header.tensors)
    return frozenset(int(match[1]) for match in found if match and _is_any(match[2], parts))


def _is_any(part: str, names: tuple[str, ...]) -> bool:
    return any(part == name or (name in _STATE and part.startswith(name)) for name in names)


def _convolution(header: Header) -> int:
    """Numbers of a block's last inputs, as far as it looks back."""
    n_embd = header.number("embedding_length")
    if header.number("wkv.head_size"):
        return header.number("token_shift_count", 2) * n_embd
    if length := header.number("shortconv.l_cache"):
        return n_embd * (length - 1)
    n_back = max(header.number("ssm.conv_kernel") - 1, 0)
    if head := header.number("kda.head_dim"):
        return 3 * (n_back or 3) * header.number("attention.head_count") * head
    return n_back * channels(header)


def _recurrence(header: Header) -> int:
    """Numbers of a block's state proper."""
    if head := header.number("wkv.head_size"):
        return header.number("embedding_length") * head
    if head := header.number("kda.head_dim"):
        return head * head * header.number("attention.head_count")
    return header.number("ssm.state_size") * header.number("ssm.inner_size")
