"""Baseline: llama-cpp-python's `Llama` with its prompt lookup, greedy, configured as far as its arguments go."""

import argparse
import json
import os
import time
from pathlib import Path

from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

from bench.baselines import upstream
from cadcpp.system.memory_limits import read_bytes


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", type=Path, required=True)
    parser.add_argument("-p", required=True)
    parser.add_argument("-n", type=int, default=16)
    parser.add_argument("--ctx", type=int, default=2048)
    options = parser.parse_args()
    start = time.perf_counter()
    llama = upstream.load(
        options.m,
        n_ctx=options.ctx,
        n_batch=64,
        n_threads=os.cpu_count(),
        draft_model=LlamaPromptLookupDecoding(num_pred_tokens=8),
        logits_all=True,  # else it crashes once a text is longer than one batch
    )
    loaded = time.perf_counter()
    prompt, tokens, times = llama.tokenize(options.p.encode(), special=True), list[int](), list[float]()
    read, cpu_s = 0, 0.0
    for token in llama.generate(prompt, temp=0.0):
        times.append(time.perf_counter())
        if len(times) == 1:
            read, cpu_s = read_bytes(), time.process_time()
        if token == llama.token_eos() or len(tokens) >= options.n:
            break
        tokens.append(token)
    print(
        json.dumps(
            {
                "tokens": tokens,
                "load_seconds": loaded - start,
                "first_seconds": times[0] - start,
                "seconds_per_token": (times[-1] - times[0]) / max(len(times) - 1, 1),
                "cpu_seconds_per_token": (time.process_time() - cpu_s) / max(len(times) - 1, 1),
                "read_bytes_per_token": (read_bytes() - read) // max(len(times) - 1, 1),
                "prompt_tokens": len(prompt),
            }
        )
    )


if __name__ == "__main__":
    main()
