"""The tiny models are what the tests take them for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cadcpp.native.lib import api
from tests.support.vocab import EOS, N_VOCAB

TEXT = "Hello the World: thing äé 漢!\n"


@contextmanager
def loaded(path: Path) -> Iterator[Any]:
    params = api.llama_model_default_params()
    params.use_extra_bufts = False  # where AMX is announced and missing, its kernels end the process
    model = api.llama_model_load_from_file(str(path).encode(), params)
    assert model, f"{path} does not load"
    yield model
    api.llama_model_free(model)


@contextmanager
def context(model: Any, **settings: Any) -> Iterator[Any]:
    params = api.llama_context_default_params()
    for name, value in {"n_ctx": 256, "n_batch": 256, "n_threads": 1, "n_threads_batch": 1, **settings}.items():
        setattr(params, name, value)
    ctx = api.llama_init_from_model(model, params)
    assert ctx, "no context"
    yield ctx
    api.llama_free(ctx)


def tokenize(model: Any, text: str) -> list[int]:
    room, data = (api.llama_token * 256)(), text.encode()
    n = api.llama_tokenize(api.llama_model_get_vocab(model), data, len(data), room, 256, True, True)
    return list(room[:n])


def detokenize(model: Any, ids: list[int]) -> str:
    import ctypes

    room = ctypes.create_string_buffer(1024)
    vocab = api.llama_model_get_vocab(model)
    n = api.llama_detokenize(vocab, (api.llama_token * len(ids))(*ids), len(ids), room, 1024, True, False)
    return room.raw[:n].decode()


def logits(ctx: Any, ids: list[int]) -> NDArray[np.float32]:
    """Of the last token."""
    tokens = (api.llama_token * len(ids))(*ids)  # the batch only points to them
    assert api.llama_decode(ctx, api.llama_batch_get_one(tokens, len(ids))) == 0
    return np.ctypeslib.as_array(api.llama_get_logits_ith(ctx, -1), (N_VOCAB,)).copy()


def greedy(path: Path, ids: list[int], n: int, **settings: Any) -> list[int]:
    """``ids`` and the ``n`` tokens that the model puts after them."""
    ids = list(ids)
    with loaded(path) as model, context(model, **settings) as ctx:
        row = logits(ctx, ids)
        for _ in range(n):
            ids.append(int(np.argmax(row)))
            row = logits(ctx, ids[-1:])
    return ids


def choices(path: Path, ids: list[int]) -> list[int]:
    """The model's own next token after each of ``ids``."""
    with loaded(path) as model, context(model) as ctx:
        return [int(np.argmax(logits(ctx, [token]))) for token in ids]


@pytest.mark.parametrize(
    ("architecture", "recurrent", "hybrid", "encoder"),
    [
        ("llama", False, False, False),
        ("mamba", True, False, False),
        ("lfm2", False, True, False),
        ("bert", False, False, False),
        ("t5", False, False, True),
    ],
)
def test_each_architecture_loads_as_itself(
    tiny: Callable[..., Path], architecture: str, recurrent: bool, hybrid: bool, encoder: bool
) -> None:
    with loaded(tiny(architecture)) as model:
        assert api.llama_model_is_recurrent(model) == recurrent
        assert api.llama_model_is_hybrid(model) == hybrid
        assert api.llama_model_has_encoder(model) == encoder
        assert api.llama_vocab_n_tokens(api.llama_model_get_vocab(model)) == N_VOCAB


@pytest.mark.parametrize("architecture", ["llama", "mamba", "lfm2"])
def test_each_decoder_decodes(tiny: Callable[..., Path], architecture: str) -> None:
    with loaded(tiny(architecture)) as model, context(model) as ctx:
        row = logits(ctx, tokenize(model, TEXT))
        assert np.isfinite(row).all()
        assert 1 < row.std() < 20


def test_bert_embeds(tiny: Callable[..., Path]) -> None:
    with loaded(tiny("bert")) as model, context(model, embeddings=True) as ctx:
        ids = tokenize(model, TEXT)
        tokens = (api.llama_token * len(ids))(*ids)  # the batch only points to them
        assert api.llama_encode(ctx, api.llama_batch_get_one(tokens, len(ids))) == 0
        assert np.isfinite(np.ctypeslib.as_array(api.llama_get_embeddings_seq(ctx, 0), (64,))).all()


def test_any_text_can_be_tokenized_and_comes_back(tiny: Callable[..., Path]) -> None:
    with loaded(tiny()) as model:
        ids = tokenize(model, TEXT)
        assert ids[0] == api.llama_vocab_bos(api.llama_model_get_vocab(model))
        assert api.llama_vocab_eos(api.llama_model_get_vocab(model)) == EOS
        assert detokenize(model, ids).removeprefix(" ") == TEXT


def test_the_other_vocabulary_differs_in_one_token(tiny: Callable[..., Path]) -> None:
    texts = []
    for path in (tiny(), tiny(other_vocab=True)):
        with loaded(path) as model:
            vocab = api.llama_model_get_vocab(model)
            texts.append([api.llama_vocab_get_text(vocab, token) for token in range(N_VOCAB)])
    assert [a == b for a, b in zip(*texts, strict=True)].count(False) == 1


def test_noise_lowers_the_agreement(tiny: Callable[..., Path]) -> None:
    ids = np.random.default_rng(5).integers(3, N_VOCAB, 200).tolist()
    own = choices(tiny(), ids)
    agreement = [np.mean(np.equal(own, choices(tiny(noise=noise), ids))) for noise in (0.0, 0.03, 0.1, 0.3)]
    assert agreement[0] == 1
    assert all(np.diff(agreement) < -0.03), agreement
    assert agreement[1] > 0.6, agreement


@pytest.mark.parametrize("type_name", ["F32", "F16", "Q8_0", "Q4_0"])
def test_weight_types_load_with_a_q8_0_cache(tiny: Callable[..., Path], type_name: str) -> None:
    exact = {"type_k": 8, "type_v": 8, "flash_attn_type": 1}  # GGML_TYPE_Q8_0, flash attention on
    with loaded(tiny(type_name=type_name)) as model, context(model, **exact) as ctx:
        assert np.isfinite(logits(ctx, tokenize(model, TEXT))).all()


def test_a_chat_template_can_be_given(tiny: Callable[..., Path]) -> None:
    with loaded(tiny(chat_template="{{ messages }}")) as model:
        assert api.llama_model_chat_template(model, None) == b"{{ messages }}"
