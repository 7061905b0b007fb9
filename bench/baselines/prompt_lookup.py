"""Baseline: llama-cpp-python's `Llama` with its prompt lookup, greedy, configured as far as its arguments go."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

from bench.baselines import upstream
from bench.baselines.token_times import TokenTimes
from bench.program import run_program


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", type=Path, required=True)
    parser.add_argument("-p", required=True)
    parser.add_argument("-n", type=int, default=16)
    parser.add_argument("--ctx", type=int, default=2048)
    options = parser.parse_args()
    times = TokenTimes()
    llama = _load(options.m, options.ctx)
    times.loaded()
    prompt = llama.tokenize(options.p.encode(), special=True)
    tokens = write(llama, prompt, options.n, times)
    print(json.dumps(times.record(tokens, len(prompt))))


def _load(path: Path, n_ctx: int) -> Any:
    return upstream.load(
        path,
        n_ctx=n_ctx,
        n_threads=os.cpu_count(),
        draft_model=LlamaPromptLookupDecoding(num_pred_tokens=8),
        logits_all=True,  # else it crashes once a text is longer than one batch
    )


def write(llama: Any, prompt: list[int], n: int, times: TokenTimes) -> list[int]:
    """Up to ``n`` tokens after ``prompt``."""
    tokens = list[int]()
    for token in llama.generate(prompt, temp=0.0):
        times.add()
        if token == llama.token_eos() or len(tokens) >= n:
            break
        tokens.append(token)
    return tokens


if __name__ == "__main__":
    run_program(main)
