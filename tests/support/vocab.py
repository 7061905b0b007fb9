"""A vocabulary for tiny models: SentencePiece with a token for every byte, so any text can be tokenized."""

import string
from collections.abc import Sequence
from typing import Any

import numpy as np
from gguf import TokenType

UNK, BOS, EOS = 0, 1, 2
FIRST_BYTE = 3
N_VOCAB = 354

_SPACE = "\u2581"  # how SentencePiece writes a space
_LETTERS = string.ascii_lowercase
_PAIRS = "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha".split()
_WORDS = [f"{_SPACE}the", f"{_SPACE}th", f"{_SPACE}an", f"{_SPACE}and", f"{_SPACE}to", f"{_SPACE}of", "ing"]
_PIECES = [_SPACE, *_LETTERS, *(_SPACE + letter for letter in _LETTERS), *_PAIRS, *_WORDS, *".,!?'-():"]


def random_text(seed: int, n: int) -> list[int]:
    """Token ids of a text that means nothing."""
    return [int(token) for token in np.random.default_rng(seed).integers(3, N_VOCAB, n)]


def tokens(
    n_vocab: int = N_VOCAB,
    *,
    differs: bool = False,
    n_padding: int = 0,
    begin: str = "<s>",
    control: Sequence[str] = (),
) -> tuple[list[str], list[int]]:
    """Texts and types of all tokens; with ``differs`` the last text has another spelling. Padding comes behind.

    The texts of ``control`` take the place of the first ones of padding.
    """
    texts = ["<unk>", begin, "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *_PIECES]
    texts += [f"extra{number}" for number in range(n_vocab - len(texts))]
    if len(texts) != n_vocab:
        raise ValueError(f"n_vocab must be at least {len(texts)}, got {n_vocab}")
    if differs:
        texts[-1] = "different"
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    types += [TokenType.NORMAL] * (n_vocab - len(types)) + [TokenType.UNUSED] * n_padding
    texts += [f"[PAD{number}]" for number in range(n_vocab, n_vocab + n_padding)]
    for number, text in enumerate(control, n_vocab):
        texts[number], types[number] = text, TokenType.CONTROL
    return texts, [int(kind) for kind in types]


def add_vocabulary(
    writer: Any,
    n_vocab: int = N_VOCAB,
    *,
    model: str = "llama",
    bos: int | None = BOS,
    add_bos: bool | None = True,
    add_eos: bool | None = None,
    add_space: bool = True,
    **options: Any,
) -> None:
    """Put the tokenizer into a GGUF; ``options`` as for `tokens`.

    ``model`` "gpt2" makes a byte-level one of the same texts, "t5" a unigram one.
    """
    texts, types = tokens(n_vocab, **options)
    if model == "gpt2":
        texts = _byte_level(texts)
        types = [TokenType.NORMAL if kind == TokenType.BYTE else kind for kind in types]
        writer.add_token_merges(["t h", "h e", "i n", "\u0120 t"])
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_scores([float(-number) for number in range(len(texts))])
    writer.add_token_types(types)
    writer.add_token_type_count(2)
    writer.add_unk_token_id(UNK)
    if bos is not None:
        writer.add_bos_token_id(bos)
    writer.add_eos_token_id(EOS)
    if add_bos is not None:
        writer.add_add_bos_token(add_bos)
    if add_eos is not None:
        writer.add_add_eos_token(add_eos)
    writer.add_add_space_prefix(add_space)


def _byte_level(texts: list[str]) -> list[str]:
    """The same, with GPT-2's letters for bytes; what would be there twice is something else."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    other = [byte for byte in range(256) if byte not in plain]
    letters = {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(other)}
    found = [*texts[:FIRST_BYTE], *(letters[byte] for byte in range(256))]
    for text in texts[FIRST_BYTE + 256 :]:
        text = text.replace(_SPACE, "\u0120")
        found.append(f"{text}{len(found)}" if text in found else text)
    return found
