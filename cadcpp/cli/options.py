"""Options that several commands share, and the objects made from them."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

import click

from cadcpp.errors import ConfigError
from cadcpp.modes import Fallback, Speculative

if TYPE_CHECKING:
    from cadcpp.config import SamplingConfig, SessionConfig
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


PAIR_OPTIONS: Callable[[F], F] = _stack(
    click.option(
        "-m",
        "--model",
        required=True,
        type=Path,
        metavar="V.gguf",
        help="Verifier: the model whose text you want.",
    ),
    click.option("-d", "--draft", type=Path, metavar="D.gguf", help="Draft: a small model with the same vocabulary."),
    click.option(
        "--ctx",
        type=int,
        default=None,
        help="Tokens of text that fit, prompt included. [default: 4096, or what the model was trained for]",
    ),
    click.option(
        "--ram",
        metavar="SIZE",
        help="Memory to use in all, such as 900MiB. [default: what the system leaves]",
    ),
    click.option(
        "--rows",
        type=int,
        default=None,
        help="Rows of a token tree at most (1 to 256). [default: 64; 128 where the disk is so slow that they pay]",
    ),
)

MODEL_OPTIONS: Callable[[F], F] = _stack(
    PAIR_OPTIONS,
    click.option("--threads", type=int, default=None, help="Compute threads. [default: one per core]"),
    click.option(
        "--speculative",
        type=click.Choice(get_args(Speculative)),
        default="auto",
        show_default=True,
        help="draft: by the model of -d. ngram: from what the text said before. staged: by the model, and n-grams "
        "draft for it. auto: what turns out faster, staged or ngram. off: plain decoding. The text is the same.",
    ),
    click.option(
        "--ngram",
        type=Path,
        metavar="FILE",
        help="An n-gram model that helps to draft; `cadcpp models make-ngram` makes one.",
    ),
    click.option(
        "--fallback",
        type=click.Choice(get_args(Fallback)),
        default="cost",
        show_default=True,
        help="cost: trees as large as pays, by measurement. llmcad: LLMCad's way. none: always as large as --rows.",
    ),
    click.option("--no-pipeline", is_flag=True, help="Let disk, draft and verifier take turns."),
    click.option("--no-pager", is_flag=True, help="Leave paging to the system."),
    click.option("--trace", type=Path, metavar="FILE", help="Write what disk, draft and verifier do, for Perfetto."),
)

SAMPLING_OPTIONS: Callable[[F], F] = _stack(
    click.option("-n", "--n", "n_predict", default=128, show_default=True, help="Tokens to write at most."),
    click.option("--temp", default=0.8, show_default=True, help="Temperature; 0 is greedy."),
    click.option("--top-k", default=40, show_default=True, help="Draw among the k likeliest tokens; 0: all."),
    click.option("--top-p", default=0.95, show_default=True, help="... among those that make up this probability."),
    click.option("--min-p", default=0.05, show_default=True, help="... at least this likely, relative to the best."),
    click.option("--repeat-penalty", default=1.0, show_default=True, help="Penalty on the last 64 tokens; 1 is none."),
    click.option("--seed", type=int, default=None, help="Same seed, same text. [default: random]"),
    _together("sampling", "temp", "top_k", "top_p", "min_p", "repeat_penalty", "seed"),
)


def make_sampling(
    temp: float, top_k: int, top_p: float, min_p: float, repeat_penalty: float, seed: int | None
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
    )


def session_config(
    ctx: int | None,
    threads: int | None,
    speculative: Speculative,
    ngram: Path | None,
    rows: int | None,
    ram: str | None,
    fallback: Fallback,
    no_pipeline: bool,
    no_pager: bool,
    trace: Path | None,
) -> "SessionConfig":
    """Settings from the command line; checks every number."""
    from cadcpp.config import SessionConfig
    from cadcpp.tree.limits import limit_tree
    from cadcpp.util.byte_size import parse_size

    return SessionConfig(
        n_ctx=_CTX if ctx is None else ctx,
        n_threads=threads,
        ram=parse_size(ram) if ram is not None else None,
        pager=not no_pager,
        pipeline=not no_pipeline,
        ngram=ngram,
        speculative=speculative,
        trace=trace,
        fallback=fallback,
        tree=limit_tree(rows),
    )


def open_session(
    model: Path,
    draft: Path | None,
    n_predict: int,
    ctx: int | None,
    planned: "Callable[[Plan, SessionConfig], None] | None" = None,
    **settings: Any,
) -> "Session":
    """A running session from the command line; checks every number before it loads anything.

    ``planned`` is shown what will run, right before it is loaded.
    """
    if n_predict < 1:
        raise ConfigError(f"-n must be at least 1, got {n_predict}")
    config = session_config(ctx, **settings).resolve(draft is not None)
    from cadcpp.runtime.session import Session
    from cadcpp.runtime.stages import apart

    if ctx is None:  # only now: numbers are checked before any file is opened
        config = replace(config, n_ctx=default_ctx(model))
    show = None if planned is None else (lambda plan: planned(plan, config))
    return apart(lambda: Session(model, draft, config, planned=show))


def default_ctx(model: Path) -> int:
    """A context that the model was made for."""
    from cadcpp.gguf.header import read_header

    trained = read_header(model).number("context_length", _CTX)
    return max(2, min(_CTX, trained))
