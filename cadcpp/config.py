"""Frozen settings, checked where they are made."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from cadcpp.errors import ConfigError
from cadcpp.link.address import Address, check_addresses
from cadcpp.modes import CacheValues, Draws, Exact, Fallback, Pin, Speculative
from cadcpp.sampling.coupling import Coupling
from cadcpp.system.cpu import choose_threads
from cadcpp.system.cpu_load import CpuLoad
from cadcpp.tree.limits import TreeLimits
from cadcpp.util.checks import check

MAX_THREADS = 512  # ggml's GGML_MAX_N_THREADS; more end the process


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """How the verifier's next token is drawn; temperature 0 is greedy. Names and defaults are llama.cpp's."""

    temperature: float = 0.8
    top_k: int = 40  # 0: all
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    seed: int = 0
    sampler: Draws = "coupled"  # with noise that drafters know, or by llama.cpp's own generator

    def __post_init__(self) -> None:
        check(
            math.isfinite(self.temperature) and self.temperature >= 0,
            "temperature",
            self.temperature,
            "0 or more",
        )
        check(0 <= self.top_k < 2**31, "top-k", self.top_k, "between 0 (all) and 2147483647")
        check(0 < self.top_p <= 1, "top-p", self.top_p, "above 0 and at most 1")
        check(0 <= self.min_p <= 1, "min-p", self.min_p, "between 0 and 1")
        check(
            math.isfinite(self.repeat_penalty) and self.repeat_penalty > 0,
            "repeat-penalty",
            self.repeat_penalty,
            "above 0",
        )
        check(self.repeat_last_n >= 0, "repeat-last-n", self.repeat_last_n, "0 or more")
        check(0 <= self.seed < 2**32, "seed", self.seed, "between 0 and 4294967295")
        check(self.sampler in get_args(Draws), "sampler", self.sampler, " or ".join(get_args(Draws)))

    def coupling(self) -> Coupling | None:
        """What drafters may know of the draws; None: nothing, or nothing is drawn."""
        if self.sampler == "llama" or self.temperature == 0:
            return None
        return Coupling(
            seed=self.seed,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repeat_penalty=self.repeat_penalty,
            repeat_last_n=self.repeat_last_n,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """Sizes of one session."""

    n_ctx: int = 4096  # tokens of text, prompt included
    n_batch: int = 512  # prompt tokens per pass
    n_threads: int | None = None  # None: as many as there are fast, idle cores
    threads_because: str = ""  # why so many, where nobody asked for them
    ram: int | None = None  # bytes that the process may use in all; None: what the system leaves
    held: int | None = None  # bytes of it that the process holds before; None: those of a bare interpreter
    pager: bool = True  # False: leave paging to the kernel
    pin: Pin = "auto"  # how weights that are to stay in memory are kept there
    pipeline: bool = True  # False: disk, draft and verifier take turns
    tree: TreeLimits = field(default_factory=TreeLimits)
    speculative: Speculative = "auto"  # what drafts
    logits_all: bool = False  # whether a pass may ask for the logits of all its rows
    ngram: Path | None = None  # an n-gram model, to draft with beside or without a draft model
    trace: Path | None = None  # where to write a trace
    fallback: Fallback = "cost"  # what decides the size of a tree; none: it is fixed
    rope: tuple[float, float] = (0.0, 0.0)  # the verifier's frequency base and scale; 0: those of its file
    workers: tuple[Address, ...] = ()  # other machines, which compute the last layers
    cache_values: CacheValues = "q8_0"  # of the KV cache; auto: f16, which is faster, where all weights stay in memory
    exact: Exact = "auto"  # strict: refuse a verifier that speculation may change the text of; off: do not look

    def __post_init__(self) -> None:
        check(self.n_ctx >= 2, "ctx", self.n_ctx, "at least 2")
        check(self.n_batch >= 1, "batch", self.n_batch, "at least 1")
        check_addresses(self.workers)
        check(self.ram is None or self.ram >= 1, "ram", self.ram, "at least 1 byte")
        check(
            self.n_threads is None or 1 <= self.n_threads <= MAX_THREADS,
            "threads",
            self.n_threads,
            f"between 1 and {MAX_THREADS}",
        )

    def resolve(self, draft: bool) -> "SessionConfig":
        """The settings with what follows from them where there is a draft model, or none. Raises ConfigError."""
        mode = self.speculative
        if not draft and mode in ("draft", "staged"):
            raise ConfigError(f"speculative {mode} needs a draft model: give one with -d or draft_model_path")
        if self.ngram is not None and mode in ("draft", "off"):
            raise ConfigError(f"speculative {mode} does not use n-grams: leave out {self.ngram}")
        if mode == "off" or self.tree.max_size == 1:
            return replace(self, speculative="off", tree=replace(self.tree, max_size=1))
        return replace(self, speculative="ngram") if not draft and mode == "auto" else self

    def with_threads(self, load: CpuLoad | None = None) -> "SessionConfig":
        """The settings with a number of threads to begin with.

        It takes a moment, to see what other programs do, unless ``load`` has been looking for a while.
        """
        if self.n_threads is not None:
            return self
        threads = choose_threads(load=load)
        return replace(self, n_threads=threads.n, threads_because=threads.why)

    def threads(self) -> int:
        """How many compute: what was asked for or decided before, else what is best now."""
        return self.with_threads().n_threads or 1
