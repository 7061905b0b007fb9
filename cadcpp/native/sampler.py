"""llama.cpp's own sampler chain: the target's tokens are drawn by nothing else."""

import ctypes
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

from cadcpp.config import SamplingConfig
from cadcpp.errors import ConfigError
from cadcpp.native.context import Context
from cadcpp.native.lib import api, last_error
from cadcpp.native.model import Model


class Sampler:
    """Penalties, then greedy or top-k, top-p, min-p, temperature and one seeded draw per token."""

    def __init__(self, n_vocab: int, config: SamplingConfig) -> None:
        self._stack = ExitStack()
        self.handle = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        self._stack.callback(api.llama_sampler_free, self.handle)
        for link in _links(config, n_vocab):
            api.llama_sampler_chain_add(self.handle, link)

    def observe(self, tokens: Iterable[int]) -> None:
        """Let the penalties know tokens that were not drawn here, such as a prompt."""
        for token in tokens:
            api.llama_sampler_accept(self.handle, token)

    def draw(self, context: Context, row: int) -> int:
        """Draw the next token from the logits of one row of the context's last batch, and remember it."""
        return draw(self.handle, context, row)

    def close(self) -> None:
        """Free the chain. May be called twice."""
        self._stack.close()


def check_grammar(model: Model, text: str, root: str) -> None:
    """Raise ConfigError unless llama.cpp can read a grammar; a chain with one that it cannot ends the process."""
    with _unprinted():
        link = api.llama_sampler_init_grammar(model.vocab, text.encode(), root.encode())
    if not link:
        raise ConfigError(f"llama.cpp cannot read the grammar: {last_error(text[:60])}")
    api.llama_sampler_free(link)


@contextmanager
def _unprinted() -> Iterator[None]:
    """Inside, what C prints as an error goes nowhere: of a grammar that it cannot read llama.cpp prints the whole.

    The file descriptor stays as it is, since other threads may be writing to it.
    """
    stderr, shown, nowhere = _streams()
    stderr.value = nowhere or shown
    try:
        yield
    finally:
        stderr.value = shown


@cache
def _streams() -> tuple[ctypes.c_void_p, int | None, int | None]:
    """C's variable for standard error, what it holds, and a file for the time being, if there can be one."""
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    try:
        stderr = ctypes.c_void_p.in_dll(libc, "stderr")
    except ValueError:  # another C library, with another name for it
        return ctypes.c_void_p(), None, None
    return stderr, stderr.value, libc.fopen(os.devnull.encode(), b"w")


def draw(chain: int, context: Context, row: int) -> int:
    """Draw with any of llama.cpp's sampler chains, from the logits of one row of the context's last batch."""
    return int(api.llama_sampler_sample(chain, context.handle, row))


def _links(config: SamplingConfig, n_vocab: int) -> Iterable[ctypes.c_void_p]:
    if config.repeat_penalty != 1.0:
        yield api.llama_sampler_init_penalties(n_vocab, config.repeat_last_n, config.repeat_penalty, 0.0, 0.0)
    if config.temperature == 0.0:
        yield api.llama_sampler_init_greedy()
        return
    yield api.llama_sampler_init_top_k(config.top_k)
    yield api.llama_sampler_init_top_p(config.top_p, 1)
    yield api.llama_sampler_init_min_p(config.min_p, 1)
    yield api.llama_sampler_init_temp(config.temperature)
    yield api.llama_sampler_init_dist(fixed_seed(config.seed))


def fixed_seed(seed: int) -> int:
    """A seed that gives the same draws every time: llama.cpp takes the largest one, and no other, for a random one."""
    return seed - 1 if seed == api.LLAMA_DEFAULT_SEED else seed
