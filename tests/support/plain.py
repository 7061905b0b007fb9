"""Plain decoding straight on llama.cpp's C API: the reference that cadcpp's text must equal.

Shares no line with cadcpp: one token at a time from the first token of the prompt on, its own batches and its own
sampler chain. Configured alike, since llama.cpp's defaults round differently in a batch than for a single token.
"""

import ctypes
import math
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("GGML_CPU_TILED_MM", "0")

from llama_cpp import llama_cpp as api  # noqa: E402


@dataclass(frozen=True, slots=True)
class Settings:
    """One way to draw tokens; temperature 0 is greedy."""

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.0
    penalty: float = 1.0
    last_n: int = 64
    seed: int = 0
    coupled: bool = False  # draws with noise that rests on seed and position


class PlainLoop:
    """One model and one context with a single sequence."""

    def __init__(self, path: Path, n_ctx: int, n_threads: int = 1, *, f16_values: bool = False) -> None:
        self._stack = ExitStack()
        model_params = api.llama_model_default_params()
        model_params.n_gpu_layers, model_params.use_extra_bufts = 0, False
        self.model = api.llama_model_load_from_file(os.fsencode(path), model_params)
        self._stack.callback(api.llama_model_free, self.model)
        params = api.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, 32, 32
        params.n_threads = params.n_threads_batch = n_threads
        params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.type_k = api.GGML_TYPE_Q8_0
        params.type_v = api.GGML_TYPE_F16 if f16_values else api.GGML_TYPE_Q8_0
        self.context = api.llama_init_from_model(self.model, params)
        self._stack.callback(api.llama_free, self.context)
        self.vocab = api.llama_model_get_vocab(self.model)
        self._held: list[int] = []

    def close(self) -> None:
        self._stack.close()

    def generate(self, prompt: Sequence[int], n: int, settings: Settings) -> list[int]:
        """Up to ``n`` tokens after ``prompt``, the end token not included."""
        sampler = self._sampler(settings)
        try:
            for token in prompt[-settings.last_n :]:
                api.llama_sampler_accept(sampler, token)
            self._keep_common(prompt)
            for token in prompt[len(self._held) :]:
                self._decode(token)
            text: list[int] = []
            while len(text) < n:
                token = self._sample(sampler, settings, len(prompt) + len(text))
                if api.llama_vocab_is_eog(self.vocab, token):
                    break
                text.append(token)
                self._decode(token)
            return text
        finally:
            api.llama_sampler_free(sampler)

    def _sample(self, sampler: Any, settings: Settings, position: int) -> int:
        if not settings.coupled:
            return int(api.llama_sampler_sample(sampler, self.context, -1))
        n_vocab, logits = api.llama_vocab_n_tokens(self.vocab), api.llama_get_logits_ith(self.context, -1)
        data = (api.llama_token_data * n_vocab)(*[api.llama_token_data(t, logits[t], 0.0) for t in range(n_vocab)])
        left = api.llama_token_data_array(data, n_vocab, -1, False)
        api.llama_sampler_apply(sampler, left)
        scores = {c.id: c.logit + noise(settings.seed, position, c.id) for c in left.data[: left.size]}
        token = int(max(scores, key=scores.__getitem__))
        api.llama_sampler_accept(sampler, token)
        return token

    def _keep_common(self, prompt: Sequence[int]) -> None:
        n = 0
        while n < min(len(self._held), len(prompt) - 1) and self._held[n] == prompt[n]:
            n += 1
        del self._held[n:]
        api.llama_memory_seq_rm(api.llama_get_memory(self.context), 0, n, -1)

    def _decode(self, token: int) -> None:
        one = (ctypes.c_int32 * 1)(token)
        assert api.llama_decode(self.context, api.llama_batch_get_one(one, 1)) == 0
        self._held.append(token)

    def _sampler(self, settings: Settings) -> Any:
        chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        add, n_vocab = api.llama_sampler_chain_add, api.llama_vocab_n_tokens(self.vocab)
        if settings.penalty != 1.0:
            add(chain, api.llama_sampler_init_penalties(n_vocab, settings.last_n, settings.penalty, 0.0, 0.0))
        if settings.temperature == 0.0:
            add(chain, api.llama_sampler_init_greedy())
            return chain
        add(chain, api.llama_sampler_init_top_k(settings.top_k))
        add(chain, api.llama_sampler_init_top_p(settings.top_p, 1))
        add(chain, api.llama_sampler_init_min_p(settings.min_p, 1))
        add(chain, api.llama_sampler_init_temp(settings.temperature))
        if not settings.coupled:
            add(chain, api.llama_sampler_init_dist(settings.seed))
        return chain


def noise(seed: int, position: int, token: int) -> float:
    """Gumbel noise from SplitMix64, seeded with what it gives for the seed and then for that and the position."""
    key = _split_mix(_split_mix(seed, 0) + position, 0)
    return -math.log(-math.log(((_split_mix(key, token) >> 12) + 0.5) / 2**52))


def _split_mix(seed: int, n: int) -> int:
    z = (seed + (n + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31
