"""Baseline: plain llama.cpp. A minimal loop over its C API, model mapped, one token per decode, greedy.

Configured like cadcpp's verifier (flash attention, q8_0 cache, no repacking), so the texts are the same.
"""

import argparse
import ctypes
import json
import os
import time

os.environ.setdefault("GGML_CPU_TILED_MM", "0")

import numpy as np  # noqa: E402
from llama_cpp import llama_cpp as api  # noqa: E402

from cadcpp.system.memory_limits import read_bytes  # noqa: E402

_N_BATCH = 512


def _context(model: int, n_ctx: int, threads: int) -> int:
    params = api.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, _N_BATCH, 64
    params.n_threads = params.n_threads_batch = threads
    params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_ENABLED
    params.type_k = params.type_v = api.GGML_TYPE_Q8_0
    params.n_outputs_max = 1
    return int(api.llama_init_from_model(model, params))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", required=True)
    parser.add_argument("-p", required=True)
    parser.add_argument("-n", type=int, default=16)
    parser.add_argument("--ctx", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()

    start = time.perf_counter()
    params = api.llama_model_default_params()
    params.use_extra_bufts = False
    model = api.llama_model_load_from_file(options.m.encode(), params)
    vocab = api.llama_model_get_vocab(model)
    n_vocab = api.llama_vocab_n_tokens(vocab)
    context = _context(model, options.ctx, options.threads)
    loaded = time.perf_counter()

    prompt = options.p.encode()
    buffer = (ctypes.c_int32 * (len(prompt) + 8))()
    n = api.llama_tokenize(vocab, prompt, len(prompt), buffer, len(buffer), True, True)
    batch, tokens, times, read, cpu_s = list(buffer[:n]), list[int](), list[float](), 0, 0.0
    while len(tokens) < options.n:
        for part in (batch[i : i + _N_BATCH] for i in range(0, len(batch), _N_BATCH)):
            array = (ctypes.c_int32 * len(part))(*part)
            if api.llama_decode(context, api.llama_batch_get_one(array, len(part))) != 0:
                raise SystemExit("llama_decode failed")
        logits = np.ctypeslib.as_array(api.llama_get_logits_ith(context, -1), (n_vocab,))
        token = int(np.argmax(logits))
        times.append(time.perf_counter())
        if len(times) == 1:
            read, cpu_s = read_bytes(), time.process_time()
        if api.llama_vocab_is_eog(vocab, token):
            break
        tokens.append(token)
        batch = [token]
    rest = (times[-1] - times[0]) / max(len(times) - 1, 1)
    print(
        json.dumps(
            {
                "tokens": tokens,
                "load_seconds": loaded - start,
                "first_seconds": times[0] - start,
                "seconds_per_token": rest,
                "cpu_seconds_per_token": (time.process_time() - cpu_s) / max(len(times) - 1, 1),
                "read_bytes_per_token": (read_bytes() - read) // max(len(times) - 1, 1),
                "prompt_tokens": n,
            }
        )
    )


if __name__ == "__main__":
    main()
