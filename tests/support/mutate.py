"""Damage to GGUF files that knows their structure: the same seed does the same damage."""

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import gguf

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_INTEGERS = (0, 1, 2, 3, 7, 31, 33, 63, 64, 127, 255, 353, 355, 2**15, 2**16, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
_LONG = (*_INTEGERS, 2**32, 2**40, 2**59, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_FLOATS = (0.0, -1.0, -1e-5, 1e-30, 1e30, float("nan"), float("inf"), float("-inf"))
_TEXTS = (
    b"", b"\0", b"a\0b", b"\xff\xfe\xfd", b"\x1b[31mred\x1b]0;title\x07", b"\xc2\x9b2J", b"x" * 70, b"y" * 70_000,
    b"\n\r\n", b"llama", b"mamba", b"bert", b"qwen2", b"gemma3", b"gpt2", b"deepseek2", b"clip", b"t5",
    b"rwkv",
    b"plamo2",
    b"none",
    b"no such thing",
)  # fmt: skip
_KEYS = (
    "general.alignment", "general.architecture", "general.type", "general.name", "general.license",
    "general.quantization_version", "general.file_type", "split.no", "split.count", "split.tensors.count",
    "tokenizer.chat_template", "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens",
    "tokenizer.ggml.scores", "tokenizer.ggml.token_type", "tokenizer.ggml.merges", "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id", "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.eot_token_id", "tokenizer.ggml.add_bos_token", "tokenizer.ggml.precompiled_charsmap",
    "tokenizer.ggml.token_type_count", "llama.block_count", "llama.context_length", "llama.embedding_length",
    "llama.feed_forward_length", "llama.attention.head_count", "llama.attention.head_count_kv",
    "llama.attention.key_length", "llama.attention.value_length", "llama.attention.layer_norm_rms_epsilon",
    "llama.attention.layer_norm_epsilon", "llama.attention.causal", "llama.attention.sliding_window",
    "llama.attention.scale", "llama.rope.dimension_count", "llama.rope.freq_base", "llama.rope.scaling.type",
    "llama.rope.scaling.factor", "llama.rope.scaling.original_context_length", "llama.rope.scaling.attn_factor",
    "llama.expert_count", "llama.expert_used_count", "llama.expert_weights_scale", "llama.vocab_size",
    "llama.pooling_type", "llama.use_parallel_residual", "llama.tensor_data_layout", "llama.logit_scale",
    "llama.embedding_scale", "llama.residual_scale", "llama.decoder_start_token_id", "llama.rope.dimension_sections",
    "llama.leading_dense_block_count", "llama.expert_feed_forward_length", "llama.nextn_predict_layers",
)  # fmt: skip
_OPTIONAL = (
    "rope_freqs.weight", "output.bias", "token_embd_norm.weight", "output_norm.bias", "blk.0.attn_q.bias",
    "blk.0.attn_k.bias", "blk.0.attn_qkv.weight", "blk.0.attn_qkv.bias", "blk.0.attn_q_norm.weight",
    "blk.0.attn_k_norm.weight", "blk.0.attn_output.bias", "blk.0.ffn_up.bias", "blk.0.ffn_down.bias",
    "blk.0.ffn_gate.bias", "blk.0.ffn_gate_inp.weight", "blk.0.ffn_up_exps.weight", "blk.0.ffn_down_exps.weight",
    "blk.0.ffn_gate_exps.weight", "blk.0.rope_freqs.weight", "blk.0.attn_rot_embd", "blk.0.attn_q.scale",
    "rope_factors_long.weight", "rope_factors_short.weight", "blk.0.ffn_up.scale", "blk.0.attn_norm.bias",
)  # fmt: skip
_VALUES_AT = 24  # bytes of magic, version and the two counts


@dataclass
class Value:
    """One entry of the metadata; ``body`` is what stands behind the type."""

    key: bytes
    kind: int
    body: bytes
    key_length: int | None = None  # a lie


@dataclass
class Info:
    """One entry of the tensor table."""

    name: bytes
    shape: list[int]
    kind: int
    offset: int
    n_dims: int | None = None  # a lie
    name_length: int | None = None  # a lie


@dataclass
class File:
    """A GGUF file taken apart."""

    values: list[Value]
    infos: list[Info]
    data: bytes
    version: int = 3
    magic: bytes = b"GGUF"
    alignment: int = 32
    n_values: int | None = None  # a lie
    n_infos: int | None = None  # a lie
    cuts: list[Callable[[bytes], bytes]] = field(default_factory=list)  # what is done to the bytes at last

    def to_bytes(self) -> bytes:
        counts = (
            (len(self.infos) if self.n_infos is None else self.n_infos) & (2**64 - 1),
            (len(self.values) if self.n_values is None else self.n_values) & (2**64 - 1),
        )
        head = self.magic + struct.pack("<IQQ", self.version, *counts)
        head += b"".join(_text(v.key, v.key_length) + struct.pack("<i", v.kind) + v.body for v in self.values)
        head += b"".join(map(_info, self.infos))
        whole = head + bytes(-len(head) % self.alignment) + self.data
        for cut in self.cuts:
            whole = cut(whole)
        return whole


def _text(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", (len(text) if length is None else length) & (2**64 - 1)) + text


def _info(info: Info) -> bytes:
    n_dims = len(info.shape) if info.n_dims is None else info.n_dims
    shape = struct.pack(f"<I{len(info.shape)}Q", n_dims & (2**32 - 1), *(n & (2**64 - 1) for n in info.shape))
    return _text(info.name, info.name_length) + shape + struct.pack("<iQ", info.kind, info.offset & (2**64 - 1))


def take_apart(data: bytes) -> File:
    """A sound file's parts."""
    n_infos, n_values = struct.unpack_from("<QQ", data, 8)
    values, infos, at = [], [], _VALUES_AT
    for _ in range(n_values):
        key, at = _read_text(data, at)
        (kind,) = struct.unpack_from("<i", data, at)
        end = _end(data, at + 4, kind)
        values.append(Value(key, kind, data[at + 4 : end]))
        at = end
    for _ in range(n_infos):
        name, at = _read_text(data, at)
        (n_dims,) = struct.unpack_from("<I", data, at)
        *shape, kind, offset = struct.unpack_from(f"<{n_dims}QiQ", data, at + 4)
        infos.append(Info(name, shape, kind, offset))
        at += 4 + 8 * n_dims + 12
    return File(values, infos, data[at + -at % 32 :])


def _read_text(data: bytes, at: int) -> tuple[bytes, int]:
    (n,) = struct.unpack_from("<Q", data, at)
    return data[at + 8 : at + 8 + n], at + 8 + n


def _end(data: bytes, at: int, kind: int) -> int:
    if kind == _STRING:
        return _read_text(data, at)[1]
    if kind != _ARRAY:
        return at + struct.calcsize(_SCALARS[kind])
    inner, n = struct.unpack_from("<iQ", data, at)
    at += 12
    for _ in range(n):
        at = _end(data, at, inner)
    return at


def strings(file: File, key: bytes) -> list[bytes]:
    """A list of strings among the metadata."""
    body = next(value.body for value in file.values if value.key == key)
    return [item[8:] for item in _items(body, *struct.unpack_from("<iQ", body))]


def put(file: File, key: bytes, new: bytes | list[bytes]) -> None:
    """Set a text, or a list of texts, in the metadata."""
    kind, body = _STRING, _text(new) if isinstance(new, bytes) else b""
    if isinstance(new, list):
        kind, body = _ARRAY, struct.pack("<iQ", _STRING, len(new)) + b"".join(map(_text, new))
    file.values = [*(value for value in file.values if value.key != key), Value(key, kind, body)]


def mutate(data: bytes, seed: int) -> bytes:
    """A sound file's bytes with one to three things about it changed."""
    rng, file = random.Random(seed), take_apart(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(_DAMAGES)(file, rng)
    return file.to_bytes()


# What can be wrong. Each changes one thing, and leaves the rest as it was. -----------------------------


def _counts(file: File, rng: random.Random) -> None:
    wrong = rng.choice((*_LONG, len(file.values) - 1, len(file.values) + 1, len(file.infos) - 1, len(file.infos) + 1))
    if rng.random() < 0.5:
        file.n_values = wrong
    else:
        file.n_infos = wrong


def _beginning(file: File, rng: random.Random) -> None:
    if rng.random() < 0.7:
        file.version = rng.choice((0, 1, 2, 4, 2**24 * 3, 2**32 - 1))
    else:
        file.magic = rng.choice((b"GGUG", b"FUGG", b"\0\0\0\0", b"GGML"))


def _key(file: File, rng: random.Random) -> None:
    value = rng.choice(file.values)
    if rng.random() < 0.3:
        value.key_length = rng.choice(_LONG)
    else:
        value.key = rng.choice((*_TEXTS, rng.choice(file.values).key, rng.choice(_KEYS).encode()))


def _kind(file: File, rng: random.Random) -> None:
    rng.choice(file.values).kind = rng.choice((*range(14), -1, 255, 2**31 - 1))


def _number(rng: random.Random) -> tuple[int, bytes]:
    kind = rng.choice(list(_SCALARS))
    if _SCALARS[kind] in "fd":
        return kind, struct.pack(f"<{_SCALARS[kind]}", rng.choice(_FLOATS))
    size = struct.calcsize(_SCALARS[kind])
    return kind, (rng.choice(_LONG) & (2 ** (8 * size) - 1)).to_bytes(size, "little")


def _some(rng: random.Random) -> tuple[int, bytes]:
    """A sound value of any type."""
    what = rng.random()
    if what < 0.6:
        return _number(rng)
    if what < 0.8:
        return _STRING, _text(rng.choice(_TEXTS))
    inner, body = _number(rng)
    n = rng.choice((0, 1, 2, 3, 354, 600))
    if rng.random() < 0.3:
        inner, body = _STRING, _text(rng.choice(_TEXTS[:6]))
    return _ARRAY, struct.pack("<iQ", inner, n) + body * n


def _value(file: File, rng: random.Random) -> None:
    """A known key with another value, of any type."""
    key = rng.choice((rng.choice(_KEYS).encode(), rng.choice(file.values).key))
    kind, body = _some(rng)
    file.values = [v for v in file.values if v.key != key]
    file.values.insert(rng.randrange(len(file.values) + 1), Value(key, kind, body))


def _same_kind(file: File, rng: random.Random) -> None:
    """A number, as it is typed, with another value."""
    value = rng.choice([v for v in file.values if v.kind in _SCALARS])
    form = _SCALARS[value.kind]
    if form in "fd":
        value.body = struct.pack(f"<{form}", rng.choice(_FLOATS))
    else:
        size = len(value.body)
        old = int.from_bytes(value.body, "little")
        value.body = (rng.choice((*_LONG, old - 1, old + 1, old * 2)) % 2 ** (8 * size)).to_bytes(size, "little")


def _integer(file: File, rng: random.Random) -> None:
    """A known key with an integer as llama.cpp expects it."""
    key = rng.choice(_KEYS).encode()
    file.values = [v for v in file.values if v.key != key]
    file.values.append(Value(key, 4, struct.pack("<I", rng.choice(_INTEGERS))))


def _real(file: File, rng: random.Random) -> None:
    key = rng.choice([key for key in _KEYS if "epsilon" in key or "rope" in key or "scale" in key]).encode()
    file.values = [v for v in file.values if v.key != key]
    file.values.append(Value(key, 6, struct.pack("<f", rng.choice(_FLOATS))))


def _gone(file: File, rng: random.Random) -> None:
    if rng.random() < 0.5:
        file.values.remove(rng.choice(file.values))
    else:
        file.infos.remove(rng.choice(file.infos))


def _twice(file: File, rng: random.Random) -> None:
    if rng.random() < 0.5:
        file.values.append(rng.choice(file.values))
    else:
        file.infos.append(rng.choice(file.infos))


def _array(file: File, rng: random.Random) -> None:
    """An array's type or length."""
    value = rng.choice([v for v in file.values if v.kind == _ARRAY] or file.values)
    if value.kind != _ARRAY or len(value.body) < 12:
        return
    kind, n = struct.unpack_from("<iQ", value.body)
    if rng.random() < 0.4:
        kind = rng.choice((*range(14), -1, 99))
    else:
        n = rng.choice((*_LONG, n - 1, n + 1))
    value.body = struct.pack("<iQ", kind, n & (2**64 - 1)) + value.body[12:]


def _nested(file: File, rng: random.Random) -> None:
    depth = rng.choice((1, 2, 50, 10_000))
    rng.choice(file.values).body = struct.pack("<iQ", _ARRAY, 1) * depth + struct.pack("<iQ", 4, 0)


def _tokens(file: File, rng: random.Random) -> None:
    """The vocabulary: tokens that are there twice, empty, no text, too many or too few; scores and kinds likewise."""
    named = {v.key: v for v in file.values}
    value = named.get(b"tokenizer.ggml." + rng.choice((b"tokens", b"tokens", b"scores", b"token_type")))
    if value is None or value.kind != _ARRAY or len(value.body) < 40:
        return
    kind, n = struct.unpack_from("<iQ", value.body)
    try:
        items = _items(value.body, kind, n)
    except (struct.error, KeyError):
        return
    at = rng.randrange(max(len(items), 1))
    if kind == _STRING:
        new = rng.choice((_text(b""), _text(b"\xff\xff"), _text(b"\x1b[2J"), rng.choice(items), _text(b"z" * 5000)))
    else:
        new = rng.choice((b"\xff" * 4, b"\0" * 4, b"\0\0\xc0\x7f", b"\7\0\0\0"))
    match rng.randrange(4):
        case 0 | 1:
            items[at : at + 1] = [new]
        case 2:
            items = items[: rng.choice((0, 1, at, len(items) - 1))]
        case 3:
            items += [new] * rng.choice((1, 2, 100))
    value.body = struct.pack("<iQ", kind, len(items)) + b"".join(items)


def _items(body: bytes, kind: int, n: int) -> list[bytes]:
    items, at = [], 12
    for _ in range(n):
        end = _end(body, at, kind)
        items.append(body[at:end])
        at = end
    return items


def _shape(file: File, rng: random.Random) -> None:
    info = rng.choice(file.infos)
    what = rng.random()
    if what < 0.2:
        info.n_dims = rng.choice((0, 1, 2, 3, 4, 5, 2**31, 2**32 - 1))
    elif what < 0.4:
        info.shape = rng.choice(([], [1], [64], [64, 64, 1, 1], [2**32, 2**32], [2**62, 4], [1] * 5, [0], [64, 0]))
    elif info.shape:
        at = rng.randrange(len(info.shape))
        old = info.shape[at]
        info.shape[at] = rng.choice((*_LONG, old - 1, old + 1, old // 2, old * 2, -old))


def _other_shape(file: File, rng: random.Random) -> None:
    """A tensor that is sound, and not what the metadata promise."""
    info = rng.choice(file.infos)
    info.shape = [max(n // rng.choice((1, 2)), 1) for n in reversed(info.shape)]


def _type(file: File, rng: random.Random) -> None:
    rng.choice(file.infos).kind = rng.choice((*gguf.GGMLQuantizationType, 4, 5, 31, 36, 99, -1, 2**31 - 1))


def _offset(file: File, rng: random.Random) -> None:
    info = rng.choice(file.infos)
    near = (info.offset - 32, info.offset + 32, info.offset + 1, rng.choice(file.infos).offset, len(file.data))
    info.offset = rng.choice((*_LONG, *near))


def _all_at_once(file: File, _rng: random.Random) -> None:
    for info in file.infos:
        info.offset = 0


def _name(file: File, rng: random.Random) -> None:
    info = rng.choice(file.infos)
    if rng.random() < 0.3:
        info.name_length = rng.choice(_LONG)
    else:
        others = (b"blk.99999999999.x", b"blk.4000000000.ffn_up.weight", b"blk.511.attn_q.weight", b"blk.-1.x")
        info.name = rng.choice((*_TEXTS, *others, rng.choice(file.infos).name, b"blk.0.ffn_up_exps.weight"))


def _swapped(file: File, rng: random.Random) -> None:
    a, b = rng.choice(file.infos), rng.choice(file.infos)
    a.name, b.name = b.name, a.name


def _alignment(file: File, rng: random.Random) -> None:
    file.values = [v for v in file.values if v.key != b"general.alignment"]
    number = rng.choice((0, 1, 2, 3, 8, 16, 24, 64, 4096, 2**31, 2**32 - 1))
    kind, body = rng.choice(((4, struct.pack("<I", number)), _some(rng)))
    file.values.insert(rng.randrange(len(file.values) + 1), Value(b"general.alignment", kind, body))


def _laid_out(file: File) -> None:
    """Let every tensor lie where ggml expects it, with data enough for all."""
    at = 0
    for info in file.infos:
        info.offset = at
        block, n_bytes = gguf.GGML_QUANT_SIZES.get(info.kind, (1, 4))
        at += -(-prod(info.shape) // block * n_bytes // file.alignment) * file.alignment
    if at < 2**24:
        file.data = (file.data * (at // max(len(file.data), 1) + 1))[:at]


def _sound_type(file: File, rng: random.Random) -> None:
    rng.choice(file.infos).kind = rng.choice([*gguf.GGMLQuantizationType])
    _laid_out(file)


def _sound_shape(file: File, rng: random.Random) -> None:
    info = rng.choice(file.infos)
    at = rng.randrange(max(len(info.shape), 1))
    old = info.shape[at] if info.shape else 1
    new = rng.choice((1, 2, 32, 33, 64, 353, 355, old - 1, old + 1, old * 2, old // 2))
    changed = info.shape[:at] + [new] + info.shape[at + 1 :]
    info.shape = rng.choice((changed, [*info.shape, 2][-4:], [1, *info.shape][:4]))
    _laid_out(file)


def _sound_set(file: File, rng: random.Random) -> None:
    """A tensor too many or too few, among them ones that llama.cpp uses if they are there."""
    if rng.random() < 0.3:
        file.infos.remove(rng.choice(file.infos))
    else:
        name, old = rng.choice(_OPTIONAL).replace("0", rng.choice("012")), rng.choice(file.infos)
        shape = rng.choice((old.shape, [64], [32], [16], [1], [64, 8], [64, 64], [64, 128, 8], [354]))
        file.infos.append(Info(name.encode(), list(shape), rng.choice((0, 0, 0, 1, 8, 26)), 0))
    _laid_out(file)


def _sound_number(file: File, rng: random.Random) -> None:
    """A size that the tensors contradict, or nearly fit."""
    key = rng.choice([key for key in _KEYS if key.startswith("llama.") and "scal" not in key]).encode()
    file.values = [v for v in file.values if v.key != key]
    number = rng.choice((0, 1, 2, 3, 4, 8, 16, 31, 32, 33, 48, 64, 96, 127, 128, 256, 353, 355, 511, 512))
    body = struct.pack("<I", number)
    array = struct.pack("<iQ", 4, 2) + struct.pack("<II", number, rng.choice((0, 1, 2, number)))
    file.values.append(Value(key, *rng.choice(((4, body), (4, body), (_ARRAY, array)))))


def _cut(file: File, rng: random.Random) -> None:
    share = rng.random()
    file.cuts.append(lambda data: data[: int(len(data) * share)])


def _cut_header(file: File, rng: random.Random) -> None:
    n = rng.randrange(max(len(file.to_bytes()) - len(file.data), 0) + 1)
    file.cuts.append(lambda data: data[:n])


def _noise(file: File, rng: random.Random) -> None:
    """Random bytes anywhere in the header, which ends where the data begin."""
    n = len(file.to_bytes()) - len(file.data)
    places = [rng.randrange(4, max(n, 5)) for _ in range(rng.choice((1, 1, 2, 8, 64)))]
    noise = [rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256))) for _ in places]

    def change(data: bytes) -> bytes:
        new = bytearray(data)
        for place, byte in zip(places, noise, strict=True):
            if place < len(new):
                new[place] = byte
        return bytes(new)

    file.cuts.append(change)


def _moved(file: File, rng: random.Random) -> None:
    """Bytes that are missing, or too many, somewhere in the header."""
    at, n = rng.randrange(4, max(len(file.to_bytes()) - len(file.data), 5)), rng.choice((1, 4, 8, 300))
    more = rng.randbytes(n) if rng.random() < 0.5 else b""
    file.cuts.append(lambda data: data[:at] + (more + data[at:] if more else data[at + n :]))


_DAMAGES = (
    _counts, _beginning, _key, _key, _kind, _value, _value, _value, _same_kind, _same_kind, _integer, _integer, _real,
    _gone, _twice, _array, _array, _nested, _tokens, _tokens, _tokens, _shape, _shape, _other_shape, _type, _type,
    _offset, _offset, _all_at_once, _name, _name, _swapped, _alignment,
    _sound_type, _sound_type, _sound_shape, _sound_shape, _sound_set, _sound_set, _sound_number, _sound_number,
    _cut, _cut_header, _noise, _noise, _moved,
)  # fmt: skip
