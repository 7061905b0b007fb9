"""How the target's tokens are drawn: llama.cpp's own sampler chain, and at its end its draw or a coupled one."""

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from cadcpp.config import SamplingConfig
from cadcpp.errors import ConfigError
from cadcpp.native.context import Context
from cadcpp.native.lib import api, last_error
from cadcpp.native.model import Model
from cadcpp.sampling.coupling import Coupling
from cadcpp.sampling.gumbel import gumbel, rough_gumbel
from cadcpp.sampling.next_tokens import reached_by

Draw = Callable[[Context, int], int]  # a token, from the logits of a row of the context's last batch
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data
_CLOSE = 1e-6  # perturbed logits; rough noise is off by a millionth of that


class Sampler:
    """Penalties, then greedy or top-k, top-p, min-p, temperature and one seeded draw per token."""

    def __init__(self, n_vocab: int, config: SamplingConfig, text: Sequence[int] = ()) -> None:
        """Draws what follows ``text``, which penalties know."""
        self.coupling = config.coupling()
        self._stack = ExitStack()
        self.handle = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        self._stack.callback(api.llama_sampler_free, self.handle)
        for link in _links(config, n_vocab):
            api.llama_sampler_chain_add(self.handle, link)
        for token in text[-config.repeat_last_n :] if config.repeat_last_n else ():
            api.llama_sampler_accept(self.handle, token)
        self.draw = self._draw(n_vocab, config, self.coupling and self.coupling.after(text))

    def _draw(self, n_vocab: int, config: SamplingConfig, coupling: Coupling | None) -> Draw:
        """What draws; without penalties no token counts that the chain would not look at first."""
        if config.repeat_penalty != 1.0:
            return draws(self.handle, n_vocab, coupling)
        if config.temperature == 0:
            return _likeliest
        return draws(self.handle, n_vocab, coupling, config.top_k)

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


def draws(chain: int, n_vocab: int, coupling: Coupling | None, top_k: int = 0) -> Draw:
    """What draws the tokens of a text one after the other with any of llama.cpp's sampler chains, and tells it of them.

    With a coupling, of which only the seed and the position of the first draw are looked at, the draw is made with
    noise that drafters know, and what the chain may have drawn itself is not looked at. Of a chain that first of all
    leaves the likeliest ``top_k`` it need not be told of the rest; 0: it has to be told of all.
    """
    if coupling is None:
        return partial(_draw, chain)
    return _CoupledDraw(chain, n_vocab, coupling.seed, coupling.position, top_k)


def _likeliest(context: Context, row: int) -> int:
    """What llama.cpp's greedy sampler takes, the first of equals too; it would copy the whole vocabulary before."""
    return int(np.argmax(context.logits_at(row)))


def _draw(chain: int, context: Context, row: int) -> int:
    return int(api.llama_sampler_sample(chain, context.handle, row))


class _CoupledDraw:
    """The argmax of what a chain leaves of the logits, plus noise that rests on the seed and the position alone."""

    def __init__(self, chain: int, n_vocab: int, seed: int, position: int, top_k: int) -> None:
        self._chain, self._seed, self._position, self._top_k = chain, seed, position, top_k
        self._tokens = np.zeros(n_vocab, _CANDIDATE)

    def __call__(self, context: Context, row: int) -> int:
        left = self._filtered(context.logits_at(row))
        token = int(left["id"][self._best(left)])
        api.llama_sampler_accept(self._chain, token)
        self._position += 1
        return token

    def _best(self, left: NDArray[np.void]) -> int:
        """Where the draw falls. Rough noise tells it, unless others are so close that the last bit might decide."""
        rough = left["logit"] + rough_gumbel(self._seed, self._position, left["id"])
        if np.count_nonzero(rough > rough.max() - _CLOSE) == 1:
            return int(np.argmax(rough))
        return int(np.argmax(left["logit"] + gumbel(self._seed, self._position, left["id"])))

    def _filtered(self, logits: NDArray[np.float32]) -> NDArray[np.void]:
        least = reached_by(logits, self._top_k) if self._top_k else -np.inf
        ids = np.flatnonzero(~(logits < np.float32(least)))  # what is no number is the chain's business
        tokens = self._tokens[: len(ids)]
        tokens["id"], tokens["logit"] = ids, logits[ids]
        data = tokens.ctypes.data_as(api.llama_token_data_p)
        left = api.llama_token_data_array(data=data, size=len(tokens), selected=-1, sorted=False)
        api.llama_sampler_apply(self._chain, ctypes.byref(left))
        first = left.data.contents
        return np.frombuffer((type(first) * left.size).from_address(ctypes.addressof(first)), _CANDIDATE)


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
    if config.sampler == "llama":
        yield api.llama_sampler_init_dist(fixed_seed(config.seed))


def fixed_seed(seed: int) -> int:
    """A seed that gives the same draws every time: llama.cpp takes the largest one, and no other, for a random one."""
    return seed - 1 if seed == api.LLAMA_DEFAULT_SEED else seed
