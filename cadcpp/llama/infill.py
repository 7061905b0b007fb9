"""Prompts for what stands between two texts, as models of code were trained on them."""

from collections.abc import Sequence
from typing import Any

from cadcpp.errors import ConfigError
from cadcpp.native.lib import api


def infill_prompt(llama: Any, before: str, after: str, files: Sequence[tuple[str, str]] = ()) -> list[int]:
    """Token ids after which a model writes what is between ``before`` and ``after``.

    ``files`` are names and texts of others that belong to it. Raises ConfigError for a model that was not trained to
    fill in.
    """
    vocab = llama._model.vocab
    prefix, suffix, middle = (
        api.llama_vocab_fim_pre(vocab),
        api.llama_vocab_fim_suf(vocab),
        api.llama_vocab_fim_mid(vocab),
    )
    if min(prefix, suffix, middle) < 0:
        raise ConfigError("this model was not trained to fill in between two texts: it has no tokens for that")
    beside = _files(llama, files)
    first, second = [prefix, *_ids(llama, before)], [suffix, *_ids(llama, after)]
    if llama.spm_infill:
        first, second = second, first
    begin = [llama.token_bos()] if api.llama_vocab_get_add_bos(vocab) else []
    return [*begin, *beside, *first, *second, middle]


def _files(llama: Any, files: Sequence[tuple[str, str]]) -> list[int]:
    """Other files, between the tokens that stand for that; where there are none, between lines."""
    repository, separator = api.llama_vocab_fim_rep(llama._model.vocab), api.llama_vocab_fim_sep(llama._model.vocab)
    found = [repository, *_ids(llama, "project\n")] if files and repository >= 0 else []
    for name, text in files:
        found += [separator, *_ids(llama, f"{name}\n{text}")] if separator >= 0 else _ids(llama, f"{name}:\n{text}\n\n")
    return found


def _ids(llama: Any, text: str) -> list[int]:
    return list(llama.tokenize(text.encode(), add_bos=False, special=False)) if text else []
