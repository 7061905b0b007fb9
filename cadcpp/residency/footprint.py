"""Bytes that caches, buffers and windows take, by a header's numbers."""

from cadcpp.gguf.blocks import block_state_bytes, cache_heads, channels, state_parts
from cadcpp.gguf.header import Header
from cadcpp.residency.layout import lay_out

_Q8_0, _F16 = 34 / 32, 2.0  # bytes per element of the KV caches
_PER_TOKEN = 160  # bytes that llama.cpp keeps for each token of a vocabulary, measured
_PER_MERGE = 190  # ... and for each of its merges, of which there are about as many
_CELLS = 256  # llama.cpp rounds the number of KV cells up to this


def whole_cells(n: int) -> int:
    """KV cells that llama.cpp makes where ``n`` are asked for."""
    return -(-n // _CELLS) * _CELLS


def window_bytes(header: Header, pinned: int) -> int:
    """Streamed bytes in memory at a time: the layer in use, the next one, and some on the way.

    More would take room from the pinned part, which saves the same bytes on every pass.
    """
    layout = lay_out(header, pinned)
    layers: dict[int, int] = {}
    for extent in layout.streamed:
        layers[extent.layer] = layers.get(extent.layer, 0) + len(extent)
    return 2 * max(layers.values(), default=0) + (8 << 20)


def cache_bytes(header: Header, n_cells: int, *, f16_values: bool = False) -> int:
    """Size of one KV cache in q8_0, or with values in f16."""
    return int(sum(cache_heads(header).values()) * _head_bytes(header, f16_values) * n_cells)


def block_cache_bytes(header: Header, n_cells: int) -> list[int]:
    """... of each block, in q8_0; what has no attention, or what no pass computes, keeps none."""
    heads = cache_heads(header)
    blocks = range(header.number("block_count", 1))
    return [int(heads.get(block, 0) * _head_bytes(header, False) * n_cells) for block in blocks]


def _head_bytes(header: Header, f16_values: bool) -> float:
    """Of a token's key and value."""
    size = header.number("embedding_length") // (header.number("attention.head_count") or 1)
    key, value = (header.number(f"attention.{name}_length", size) for name in ("key", "value"))
    return key * _Q8_0 + value * (_F16 if f16_values else _Q8_0)


def compute_bytes(
    header: Header, n_rows: int, n_outputs: int, n_cells: int, *, n_seq: int = 1, n_snapshots: int = 0
) -> int:
    """Buffers of one context for ``n_rows`` at once, of which ``n_outputs`` ask for logits (held twice).

    The widest point of llama.cpp's graph, as its log gave it for dense models and mixtures of many shapes, and for
    blocks with states of ``n_seq`` sequences.
    """
    n_embd, logits = header.number("embedding_length"), 4 * n_outputs * header.n_vocab
    mask = 2 * n_rows * n_cells
    layer = 4 * n_rows * _widest(header, n_embd)
    head = logits + 4 * n_rows * n_embd
    return mask + max(layer, head, _recurrent(header, n_rows, n_seq, n_snapshots)) + logits


def _recurrent(header: Header, n_rows: int, n_seq: int, n_snapshots: int) -> int:
    """The widest point of a block with a state, whose operation gives new states together with its rows.

    Of the gated delta net it also reads a copy. Short convolutions are narrower than what follows them.
    """
    inner, ranks = header.number("ssm.inner_size"), header.number("ssm.time_step_rank")
    convolution, state = block_state_bytes(header)
    n_states, parts = n_seq * (1 + n_snapshots), state_parts(header)
    if parts & {"ssm_beta", "ssm_ba"}:
        width, n_states = 3 * channels(header) + inner, n_states + n_seq
    elif "ssm_in" in parts and "ssm_x" not in parts:
        width = 2 * inner + 4 * channels(header) + 5 * ranks + header.number("embedding_length")
    else:
        return 0
    return 4 * n_rows * width + n_states * state + 2 * n_seq * convolution


def _widest(header: Header, n_embd: int) -> int:
    """Numbers that a row has in the widest place of a layer."""
    n_used = header.number("expert_used_count") or 1
    ups = (t for t in header.tensors if "ffn_up" in t.name)
    n_ff = max((t.shape[1] * (n_used if "_exps" in t.name else 1) for t in ups), default=0)
    return max(3 * n_ff + 4 * n_embd, 2 * (n_used + 1) * n_embd, 12 * n_embd)


def vocabulary_bytes(header: Header) -> int:
    """What llama.cpp keeps of a vocabulary."""
    each = _PER_TOKEN + (_PER_MERGE if "tokenizer.ggml.merges" in header.arrays else 0)
    return each * header.n_vocab
