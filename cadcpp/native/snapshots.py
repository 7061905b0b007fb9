"""Whether llama.cpp keeps earlier states of a model: asked of the library, with nothing loaded."""

import os

from cadcpp.gguf.header import Header
from cadcpp.native.lib import api
from cadcpp.native.model import without_vocabulary


def keeps_snapshots(header: Header) -> bool:
    """Whether a context for this model can take back its last tokens. False where llama.cpp makes none of it."""
    params = api.llama_model_default_params()
    params.n_gpu_layers, params.no_alloc, params.load_mode = 0, True, api.LLAMA_LOAD_MODE_NONE
    params.kv_overrides = without_vocabulary(header)
    model = api.llama_model_load_from_file(os.fsencode(header.path), params)
    if not model:
        return False
    try:
        return _granted(model) > 0
    finally:
        api.llama_model_free(model)


def _granted(model: int) -> int:
    params = api.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max, params.n_rs_seq = 256, 8, 8, 1, 1
    context = api.llama_init_from_model(model, params)
    if not context:
        return 0
    try:
        return int(api.llama_n_rs_seq(context))
    finally:
        api.llama_free(context)
