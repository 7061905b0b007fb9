"""Keyword arguments of the class: which are upstream's, which are the engine's, and what they ask for."""

import inspect
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from cadcpp.config import SessionConfig
from cadcpp.errors import ConfigError
from cadcpp.gguf.header import read_header
from cadcpp.llama.upstream import Q8_0, Upstream
from cadcpp.modes import Exact, Fallback, Pin, Speculative
from cadcpp.residency.footprint import whole_cells
from cadcpp.residency.memory_plan import PYTHON
from cadcpp.system.memory_limits import resident_bytes
from cadcpp.tree.limits import limit_tree
from cadcpp.util.byte_size import parse_size

UPSTREAM = {
    name: parameter
    for name, parameter in inspect.signature(Upstream.__init__).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
}
_OF_ITS_SERVER = ("mul_mat_q", "rpc_servers")  # which upstream's server passes, and upstream's class swallows
_BEYOND = (  # settings that the engine's contexts do not have; one that is not at its default leaves all to upstream
    "vocab_only embedding lora_path kv_overrides rope_scaling_type pooling_type attention_type rope_freq_base "
    "rope_freq_scale yarn_ext_factor yarn_attn_factor yarn_beta_fast yarn_beta_slow yarn_orig_ctx"
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
    exact: Exact = "auto"
    pipeline: bool = True
    pager: bool = True
    pin: Pin = "auto"
    trace: str | Path | None = None

    def __post_init__(self) -> None:
        choices = {"speculative": Speculative, "fallback": Fallback, "exact": Exact, "pin": Pin}
        for name, allowed in ((name, get_args(choice)) for name, choice in choices.items()):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")

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
            logits_all=upstream["logits_all"],
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
        if name not in UPSTREAM and name not in ENGINE and name not in _OF_ITS_SERVER:
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


def n_ctx_of(path: str, upstream: dict[str, Any]) -> int | None:
    """Tokens of context for a session; None if the settings ask for what only upstream does."""
    if any(upstream[name] != UPSTREAM[name].default for name in _BEYOND):
        return None
    if any(upstream[name] not in (None, Q8_0) for name in ("type_k", "type_v")):
        return None
    if not Path(path).exists():
        return None  # upstream says so
    trained = int(read_header(Path(path)).get("context_length", 0) or upstream["n_ctx"])
    n_ctx = upstream["n_ctx"] or trained
    return None if n_ctx > trained else min(whole_cells(n_ctx), trained)
