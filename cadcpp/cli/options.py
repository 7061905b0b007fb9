"""Options that several commands share, and the objects made from them."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

import click

from cadcpp.cli.renamed import Renamed
from cadcpp.errors import ConfigError
from cadcpp.modes import CacheValues, Draws, Exact, Fallback, Pin, Speculative

if TYPE_CHECKING:
    from concurrent.futures import Future

    from cadcpp.config import SamplingConfig, SessionConfig
    from cadcpp.link.address import Address
    from cadcpp.residency.memory_plan import Plan
    from cadcpp.runtime.session import Session

_CTX = 4096

F = TypeVar("F", bound=Callable[..., Any])


def _stack(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _together(name: str, *options: str) -> Callable[[F], F]:
    """The values of some options as one argument, a dictionary."""

    def decorate(command: F) -> F:
        @wraps(command)
        def called(**values: Any) -> Any:
            return command(**{name: {option: values.pop(option) for option in options}}, **values)

        return cast(F, called)

    return decorate


def _choice(name: str, kind: Any, default: str, help: str) -> Callable[[F], F]:
    """An option whose values are those of a Literal."""
    return click.option(name, type=click.Choice(get_args(kind)), default=default, show_default=True, help=help)


CACHE_VALUES: Callable[[F], F] = _choice(
    "--cache-values",
    CacheValues,
    "q8_0",
    "How the KV cache keeps values; the text depends on it. f16: faster the longer the text is, and 1.4 times as "
    "large. q8_0: small. auto: f16 where all weights stay in memory with room to spare, else q8_0.",
)

PAIR_OPTIONS: Callable[[F], F] = _stack(
    click.option(
        "-m",
        "--model",
        required=True,
        type=Path,
        metavar="V.gguf",
        help="The model whose text you want (the verifier), a GGUF file.",
    ),
    click.option(
        "-d",
        "--draft",
        type=Path,
        metavar="D.gguf",
        help="A small model with the same vocabulary, which drafts for it. [default: none; drafts come from the text "
        "so far]",
    ),
    click.option(
        "--ctx",
        type=int,
        metavar="N",
        help="Context size in tokens, prompt included. [default: 4096, or less if the model was trained for less]",
    ),
    click.option(
        "--ram",
        metavar="SIZE",
        help="Memory to use in all, such as 900MiB or 4GB: weights, KV caches, buffers and Python. Weights that do not "
        "fit are streamed from the disk. [default: what the system has available]",
    ),
    CACHE_VALUES,
    click.option(
        "--workers",
        metavar="HOST:PORT,...",
        help="Other machines on which `cadcpp worker` runs. As many layers as fit go into their memory, before any "
        "are streamed from the disk here. [default: none]",
    ),
    click.option(
        "--max-tree-size",
        cls=Renamed,
        formerly=("--rows",),
        type=int,
        metavar="N",
        help="Most nodes in a draft tree, 1 to 256; one pass of the verifier checks them all. [default: 64, and up to "
        "128 where the disk is so slow that more are faster]",
    ),
)

MODEL_OPTIONS: Callable[[F], F] = _stack(
    PAIR_OPTIONS,
    click.option(
        "--threads", type=int, metavar="N", help="Compute threads. [default: one per core that is fast and idle]"
    ),
    _choice(
        "--speculative",
        Speculative,
        "auto",
        "Where drafts come from. It changes the speed and, as far as --exact finds a way, never the text. draft: "
        "the model of -d. ngram: words that followed in the text so far (prompt lookup), and --ngram. staged: the "
        "model of -d, with n-grams drafting for it. auto: staged or ngram, whichever is measured to be faster; of a "
        "mixture larger than memory the draft is let go where experts have more use for its memory. off: no drafts, "
        "plain decoding.",
    ),
    click.option(
        "--ngram",
        type=Path,
        metavar="FILE",
        help="An n-gram model to draft with as well; `cadcpp models make-ngram` makes one.",
    ),
    _choice(
        "--fallback",
        Fallback,
        "cost",
        "What decides how large each draft tree is. cost: measured times of disk, draft and verifier. llmcad: "
        "LLMCad's confidence threshold. none: nothing, trees always have --max-tree-size nodes. llmcad and none decide "
        "on sizes only: with them and -d, --speculative auto is always staged.",
    ),
    _choice(
        "--exact",
        Exact,
        "auto",
        "How sure the text has to be plain decoding's. auto: kernels that were tried on this machine and found exact, "
        "and a warning if there are none. strict: refuse if there are none. off: the fastest, untried.",
    ),
    click.option(
        "--no-pipeline",
        is_flag=True,
        help="Let disk, draft and verifier work one after the other instead of at the same time.",
    ),
    _choice(
        "--pin",
        Pin,
        "auto",
        "How weights that do not all fit are kept in memory as far as they do. locked: the file's pages, locked. "
        "anonymous: copies of them, which the system takes only by swapping. off: the file's pages, which it may take. "
        "auto: locked if so much may be locked, else anonymous; off in a control group with a memory limit.",
    ),
    click.option(
        "--no-pager",
        is_flag=True,
        help="Leave it to the operating system which weights are in memory.",
    ),
    click.option(
        "--trace",
        type=Path,
        metavar="FILE",
        help="Record what disk, draft and verifier do when. `cadcpp trace FILE` summarises it, ui.perfetto.dev draws "
        "it.",
    ),
)


def sampler_option(default: Draws) -> Callable[[F], F]:
    """How tokens are drawn."""
    return _choice(
        "--sampler",
        Draws,
        default,
        "How tokens are drawn at temperatures above 0; by the same probabilities either way. coupled: with noise that "
        "drafts know beforehand, so that more of them are right. llama: with llama.cpp's own generator, as its other "
        "programs draw.",
    )


SAMPLING_OPTIONS: Callable[[F], F] = _stack(
    click.option(
        "-n",
        "--n-predict",
        cls=Renamed,
        formerly=("--n",),
        default=128,
        show_default=True,
        metavar="N",
        help="Most tokens to write.",
    ),
    click.option(
        "--temp",
        default=0.8,
        show_default=True,
        metavar="T",
        help="Sampling temperature; 0 always takes the likeliest token (greedy).",
    ),
    click.option(
        "--top-k",
        default=40,
        show_default=True,
        metavar="K",
        help="Sample from the K likeliest tokens only; 0: from all.",
    ),
    click.option(
        "--top-p",
        default=0.95,
        show_default=True,
        metavar="P",
        help="Sample from the likeliest tokens whose probabilities add up to P only; 1: from all.",
    ),
    click.option(
        "--min-p",
        default=0.05,
        show_default=True,
        metavar="P",
        help="Leave out tokens with less than P times the probability of the likeliest; 0: none.",
    ),
    click.option(
        "--repeat-penalty",
        default=1.0,
        show_default=True,
        metavar="X",
        help="Penalty on tokens that occur among the last 64; 1: none.",
    ),
    click.option(
        "--seed",
        type=int,
        metavar="N",
        help="Random seed, 0 to 4294967295; the same seed gives the same text. [default: random]",
    ),
    sampler_option("coupled"),
    _together("sampling", "temp", "top_k", "top_p", "min_p", "repeat_penalty", "seed", "sampler"),
)


def make_sampling(
    temp: float, top_k: int, top_p: float, min_p: float, repeat_penalty: float, seed: int | None, sampler: Draws
) -> "SamplingConfig":
    """Sampling settings from the command line."""
    from cadcpp.config import SamplingConfig

    return SamplingConfig(
        temperature=temp,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repeat_penalty=repeat_penalty,
        seed=random.SystemRandom().randrange(2**32) if seed is None else seed,
        sampler=sampler,
    )


def pair_config(
    ctx: int | None, max_tree_size: int | None, ram: str | None, cache_values: CacheValues, workers: str | None
) -> "SessionConfig":
    """Settings from `PAIR_OPTIONS`; checks every number."""
    from cadcpp.config import SessionConfig
    from cadcpp.tree.limits import limit_tree
    from cadcpp.util.byte_size import parse_size

    return SessionConfig(
        n_ctx=_CTX if ctx is None else ctx,
        ram=parse_size(ram) if ram is not None else None,
        cache_values=cache_values,
        workers=make_workers(workers),
        tree=limit_tree(max_tree_size),
    )


def session_config(
    threads: int | None,
    speculative: Speculative,
    ngram: Path | None,
    fallback: Fallback,
    exact: Exact,
    no_pipeline: bool,
    no_pager: bool,
    pin: Pin,
    trace: Path | None,
    **pair: Any,
) -> "SessionConfig":
    """Settings from `MODEL_OPTIONS`; checks every number."""
    return replace(
        pair_config(**pair),
        n_threads=threads,
        pager=not no_pager,
        pin=pin,
        pipeline=not no_pipeline,
        ngram=ngram,
        speculative=speculative,
        trace=trace,
        fallback=fallback,
        exact=exact,
    )


def make_workers(workers: str | None) -> "tuple[Address, ...]":
    """Addresses from the command line."""
    from cadcpp.link.address import parse_addresses

    return parse_addresses(workers) if workers is not None else ()


def always_staged(config: "SessionConfig") -> str:
    """Why ``--speculative auto`` has no choice, of resolved settings; empty if it has one."""
    if config.speculative != "auto" or config.fallback == "cost":
        return ""
    return f"staged, since --fallback {config.fallback} decides on sizes only"


def open_session(
    model: Path,
    draft: Path | None,
    n_predict: int,
    ctx: int | None,
    planned: "Callable[[Plan, SessionConfig], None] | None" = None,
    meanwhile: "Callable[[Future[Session]], object]" = lambda _loading: None,
    **settings: Any,
) -> "Session":
    """A running session from the command line; checks every number before it loads anything.

    ``planned`` is shown what will run, right before it is loaded; ``meanwhile`` is done while it is.
    """
    if n_predict < 1:
        raise ConfigError(f"-n must be at least 1, got {n_predict}")
    from cadcpp.system.cpu_load import CpuLoad

    load = CpuLoad()  # looks at what others compute while modules are imported
    config = session_config(ctx=ctx, **settings).resolve(draft is not None)
    from cadcpp.runtime.session import Session
    from cadcpp.runtime.stages import apart

    if ctx is None:  # only now: numbers are checked before any file is opened
        config = replace(config, n_ctx=default_ctx(model))
    config = config.with_threads(load)
    show = None if planned is None else (lambda plan: planned(plan, config))
    return apart(lambda: Session(model, draft, config, planned=show), meanwhile)


def default_ctx(model: Path) -> int:
    """A context that the model was made for."""
    from cadcpp.gguf.header import read_header

    trained = read_header(model).number("context_length", _CTX)
    return max(2, min(_CTX, trained))
