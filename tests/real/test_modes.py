"""Whoever drafts, the text is the same: a model, n-grams, both in stages, or what turns out faster."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.matrix.workloads import in_template
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.models.demo import DemoPair
from cadcpp.modes import Fallback, Speculative
from cadcpp.runtime.session import Session
from cadcpp.telemetry.stats import Stats
from cadcpp.tree.limits import TreeLimits
from tests.support.prompts import prompt

pytestmark = pytest.mark.real

N = 40
SAMPLINGS = {
    "greedy": SamplingConfig(temperature=0.0),
    "drawn": SamplingConfig(temperature=1.0, top_k=50, top_p=1.0, min_p=0.0, seed=6, repeat_penalty=1.1),
}
COPY = in_template("edit")  # which says most of the prompt again
MODES = [
    ("staged", "none"),
    pytest.param("staged", "llmcad", marks=pytest.mark.slow),
    pytest.param("staged", "cost", marks=pytest.mark.slow),
    ("ngram", "cost"),
    ("auto", "cost"),
]


@pytest.fixture(scope="module")
def plain(smollm2: Callable[[str], Path]) -> Iterator[Session]:
    with Session(smollm2("Q8_0"), None, SessionConfig(n_ctx=1024, n_threads=1, speculative="off")) as session:
        yield session


def texts(session: Session) -> dict[tuple[str, str], list[int]]:
    """A text of each kind, all in one session, so that what it has learned of one is there for the next."""
    found = {}
    for name in ("code", "copy"):
        ids = session.model.tokenize(COPY) if name == "copy" else prompt(session.model, name)
        for sampling, settings in SAMPLINGS.items():
            stats = Stats()
            found[name, sampling] = [t for c in session.stream(ids, settings, N, stats=stats) for t in c.tokens]
    return found


@pytest.fixture(scope="module")
def expected(plain: Session) -> dict[tuple[str, str], list[int]]:
    return texts(plain)


@pytest.mark.parametrize(("mode", "fallback"), MODES)
def test_the_text_is_that_of_plain_decoding(
    smollm2: Callable[[str], Path],
    demo: DemoPair,
    expected: dict[tuple[str, str], list[int]],
    mode: Speculative,
    fallback: Fallback,
) -> None:
    config = SessionConfig(n_ctx=1024, n_threads=1, speculative=mode, fallback=fallback, tree=TreeLimits(max_size=16))
    with Session(smollm2("Q8_0"), demo.draft, config) as session:
        assert texts(session) == expected


def test_the_second_stage_saves_decodes_where_text_repeats(smollm2: Callable[[str], Path], demo: DemoPair) -> None:
    decodes, passes = {}, {}
    for mode in ("draft", "staged"):
        limits = TreeLimits(max_size=32)
        config = SessionConfig(n_ctx=1024, n_threads=1, speculative=mode, fallback="none", tree=limits)
        with Session(smollm2("Q8_0"), demo.draft, config) as session:
            stats = Stats()
            list(session.stream(session.model.tokenize(COPY), SAMPLINGS["greedy"], 60, stats=stats))
            decodes[mode], passes[mode] = stats.draft_decodes, stats.passes
    assert decodes["staged"] <= 0.7 * decodes["draft"]
    assert passes["staged"] <= passes["draft"] + 1
