"""Baseline: plain llama.cpp. A minimal loop over its C API, model mapped, one token per decode, greedy.

At llama.cpp's own defaults, all cores working. With --same-settings it is configured like cadcpp's verifier
(flash attention, q8_0 cache, weights as they come), so that the texts are the same.
"""

import argparse
import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

SAME = "--same-settings"
if SAME in sys.argv:
    os.environ["GGML_CPU_TILED_MM"] = "0"

import numpy as np  # noqa: E402
from llama_cpp import llama_cpp as api  # noqa: E402

from bench.baselines.own_defaults import model_params  # noqa: E402
from bench.baselines.token_times import TokenTimes  # noqa: E402
from bench.program import run_program  # noqa: E402


def main() -> None:
    parser = options_parser()
    parser.add_argument(SAME, action="store_true")
    options = parser.parse_args()
    times = TokenTimes()
    model = _model(options.m, options.same_settings)
    context = make_context(model, options.ctx, options.threads, same_settings=options.same_settings)
    times.loaded()
    vocab = api.llama_model_get_vocab(model)
    prompt = tokenize(vocab, options.p.encode())
    tokens = write(context, vocab, prompt, options.n, times)
    print(json.dumps(times.record(tokens, len(prompt))))


def options_parser() -> argparse.ArgumentParser:
    """What every such loop is told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", required=True)
    parser.add_argument("-p", required=True)
    parser.add_argument("-n", type=int, default=16)
    parser.add_argument("--ctx", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser


def write(context: int, vocab: int, prompt: list[int], n: int, times: TokenTimes) -> list[int]:
    """Up to ``n`` tokens after ``prompt``."""
    batch, tokens = prompt, list[int]()
    while len(tokens) < n:
        token = _next(context, vocab, batch)
        times.add()
        if api.llama_vocab_is_eog(vocab, token):
            break
        tokens.append(token)
        batch = [token]
    return tokens


def _next(context: int, vocab: int, batch: list[int]) -> int:
    """The likeliest token after ``batch``."""
    n_batch = api.llama_n_batch(context)
    for part in (batch[i : i + n_batch] for i in range(0, len(batch), n_batch)):
        array = (ctypes.c_int32 * len(part))(*part)
        if api.llama_decode(context, api.llama_batch_get_one(array, len(part))) != 0:
            raise SystemExit("llama_decode failed")
    logits = np.ctypeslib.as_array(api.llama_get_logits_ith(context, -1), (api.llama_vocab_n_tokens(vocab),))
    return int(np.argmax(logits))


def _model(path: str, same_settings: bool) -> int:
    params = model_params(Path(path))
    if same_settings:
        params.use_extra_bufts, params.tensor_buft_overrides = False, None
    return int(api.llama_model_load_from_file(path.encode(), params))


def make_context(model: int, n_ctx: int, threads: int, *, same_settings: bool) -> int:
    params = api.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = n_ctx, threads, threads
    if same_settings:
        _configure(params)
    return int(api.llama_init_from_model(model, params))


def _configure(params: Any) -> None:
    """As cadcpp configures its verifier."""
    params.n_batch, params.n_ubatch = 512, 64
    params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_ENABLED
    params.type_k = params.type_v = api.GGML_TYPE_Q8_0
    params.n_outputs_max = 1


def tokenize(vocab: int, text: bytes) -> list[int]:
    buffer = (ctypes.c_int32 * (len(text) + 8))()
    n = api.llama_tokenize(vocab, text, len(text), buffer, len(buffer), True, True)
    return list(buffer[:n])


if __name__ == "__main__":
    run_program(main)
