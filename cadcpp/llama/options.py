"""Keyword arguments of the class: which are upstream's, which are the engine's, and what they ask for."""

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from math import isclose
from pathlib import Path
from typing import Any, get_args

from cadcpp.config import SessionConfig
from cadcpp.errors import ConfigError
from cadcpp.gguf.header import read_header, rope_of
from cadcpp.link.address import parse_addresses
from cadcpp.llama.upstream import Q8_0, Upstream
from cadcpp.modes import CacheValues, Draws, Exact, Fallback, Pin, Speculative
from cadcpp.residency.footprint import whole_cells
from cadcpp.residency.memory_plan import PYTHON
from cadcpp.sampling.coupling import Coupling
from cadcpp.system.memory_limits import resident_bytes
from cadcpp.tree.limits import limit_tree
from cadcpp.util.byte_size import parse_size

logger = logging.getLogger(__name__)

UPSTREAM = {
    name: parameter
    for name, parameter in inspect.signature(Upstream.__init__).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
}
_OF_ITS_SERVER = ("mul_mat_q", "rpc_servers")  # which upstream's server passes, and upstream's class swallows
_SWALLOWED = (  # what upstream's class had once, or what programs give it by mistake; where it says nothing
    "n_parts f16_kv memory_f16 memory_f32 low_vram n_gqa rms_norm_eps tensorcores n_keep max_tokens temperature top_p "
    "top_k min_p repeat_penalty stop streaming stream echo callbacks callback_manager cache use_gpu gpu_layers"
).split()
_BEYOND = (  # settings that the engine's contexts do not have; one that is not at its default leaves all to upstream
    "vocab_only embedding lora_path kv_overrides rope_scaling_type pooling_type attention_type "
    "yarn_ext_factor yarn_attn_factor yarn_beta_fast yarn_beta_slow yarn_orig_ctx"
).split()
_FORMERLY = {"rows": "max_tree_size"}  # old names, which still work
_BATCH = 160  # rows of a pass, trees included: more take memory and read hardly faster (bench.studies.dropin_memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The engine's settings, as keyword arguments."""

    draft_model_path: str | Path | None = None
    ram: int | str | None = None  # bytes, or as in "900MiB"
    speculative: Speculative = "auto"
    ngram: str | Path | None = None
    max_tree_size: int | None = None  # nodes of a draft tree, root included
    fallback: Fallback = "cost"
    cache_values: CacheValues = "q8_0"
    workers: str | Sequence[str] = ()  # "HOST:PORT" of other machines, several of them, or "HOST:PORT,HOST:PORT"
    exact: Exact = "auto"
    sampler: Draws = "llama"
    pipeline: bool = True
    pager: bool = True
    pin: Pin = "auto"
    trace: str | Path | None = None

    def __post_init__(self) -> None:
        choices = {"speculative": Speculative, "fallback": Fallback, "exact": Exact, "sampler": Draws, "pin": Pin}
        choices |= {"cache_values": CacheValues}
        for name, allowed in ((name, get_args(choice)) for name, choice in choices.items()):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")

    def given(self) -> list[str]:
        """Names of settings that are not at their defaults."""
        return [name for name, default in ENGINE.items() if getattr(self, name) != default]

    def unused(self) -> dict[str, str]:
        """Settings that another one leaves without effect, and which that is."""
        if self.speculative in ("off", "ngram") and self.draft_model_path is not None:
            return {"draft_model_path": f"speculative={self.speculative!r}"}
        return {}

    def _workers(self) -> list[str]:
        return [self.workers] if isinstance(self.workers, str) and self.workers else [*self.workers]

    def session(self, upstream: dict[str, Any], n_ctx: int) -> SessionConfig:
        """What a session needs to know."""
        tree = limit_tree(self.max_tree_size)
        return SessionConfig(
            n_ctx=n_ctx,
            n_batch=max(min(n_ctx, upstream["n_batch"], _BATCH) - tree.max_size, 32),
            n_threads=upstream["n_threads"],
            ram=parse_size(self.ram) if isinstance(self.ram, str) else self.ram,
            held=max(resident_bytes(), PYTHON),  # a server, say
            pager=self.pager,
            pin=self.pin,
            pipeline=self.pipeline,
            tree=tree,
            speculative=self.speculative,
            ngram=Path(self.ngram) if self.ngram is not None else None,
            trace=Path(self.trace) if self.trace is not None else None,
            fallback=self.fallback,
            exact=self.exact,
            cache_values=self.cache_values,
            workers=parse_addresses(",".join(workers)) if (workers := self._workers()) else (),
            rope=(upstream["rope_freq_base"], upstream["rope_freq_scale"]),
            logits_all=upstream["logits_all"],
        )


def coupling(
    seed: int, temp: float, last_n: int, *, top_k: int, top_p: float, min_p: float, repeat_penalty: float, **_: Any
) -> Coupling:
    """What drafters may know of upstream's draws; below 0 its temperature stands for 1 and nothing is filtered."""
    if temp < 0:
        return Coupling(seed=seed)
    penalty = repeat_penalty if repeat_penalty > 0 else 1.0
    return Coupling(
        seed=seed,
        temperature=temp,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repeat_penalty=penalty,
        repeat_last_n=max(last_n, 0),
    )


ENGINE = {field.name: field.default for field in fields(Settings)}


def signature() -> inspect.Signature:
    """Of the class: upstream's, and behind it the engine's settings."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [inspect.Parameter(name, keyword, default=default) for name, default in (ENGINE | {"on_round": None}).items()]
    path = inspect.Parameter("model_path", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return inspect.Signature([path, *UPSTREAM.values(), *own])


def sort_out(options: dict[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """The engine's settings, and upstream's, of which all are given. Raises TypeError for a name that is neither's."""
    options = _by_new_names(options)
    for name in options:
        if name in _SWALLOWED:
            say_once(f"Llama takes no {name!r}, as llama-cpp-python's does not: it has no effect")
        elif name not in UPSTREAM and name not in ENGINE and name not in _OF_ITS_SERVER:
            near = get_close_matches(name, [*UPSTREAM, *ENGINE], 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"Llama got an unexpected keyword argument {name!r}{hint}")
    settings = Settings(**{name: value for name, value in options.items() if name in ENGINE})
    return settings, {name: options.get(name, parameter.default) for name, parameter in UPSTREAM.items()}


def _by_new_names(options: dict[str, Any]) -> dict[str, Any]:
    for old, new in _FORMERLY.items():
        if old in options and new in options:
            raise TypeError(f"Llama got both {new!r} and its former name {old!r}: leave out {old!r}")
    return {_FORMERLY.get(name, name): value for name, value in options.items()}


def n_ctx_of(path: str, upstream: dict[str, Any]) -> int | str:
    """Tokens of context for a session; or what is asked for that only upstream does."""
    for name in _BEYOND:
        if upstream[name] != UPSTREAM[name].default:
            return f"{name}={upstream[name]!r}"
    for name in ("type_k", "type_v"):
        if upstream[name] not in (None, Q8_0):
            return f"{name}={upstream[name]!r}, where drafts can be checked with {Q8_0} (q8_0) only"
    if not Path(path).exists():
        return "a file that is not there"  # upstream says so
    trained = int(read_header(Path(path)).get("context_length", 0) or upstream["n_ctx"])
    n_ctx = upstream["n_ctx"] or trained
    if n_ctx > trained:
        return f"n_ctx={n_ctx}, more than the {trained} that the model was trained for"
    return min(whole_cells(n_ctx), trained)


def with_own_rope(path: str, upstream: dict[str, Any]) -> dict[str, Any]:
    """The settings, with the defaults in the place of rope values that say what the file says."""
    names = ("rope_freq_base", "rope_freq_scale")
    if not any(upstream[name] for name in names) or not Path(path).exists():
        return upstream
    own = dict(zip(names, rope_of(read_header(Path(path))), strict=True))
    return upstream | {name: 0.0 for name in names if isclose(upstream[name], own[name], rel_tol=1e-6)}


_said = set[str]()


def say_once(text: str) -> None:
    """Warn, the first time."""
    if text not in _said:
        _said.add(text)
        logger.warning("cadcpp: %s", text)


def tell_unused(settings: Settings, why: str) -> None:
    """Warn of settings that have no effect because everything is upstream's."""
    if names := settings.given():
        logger.warning(
            "cadcpp: %s: llama.cpp alone does the work, without drafts and without paging, so %s %s no effect",
            why,
            ", ".join(names),
            "has" if len(names) == 1 else "have",
        )
