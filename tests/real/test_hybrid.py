"""A hybrid with real weights: SmolLM2 between short convolutions that add nothing."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.gguf.header import read_header
from cadcpp.models.demo import DemoPair, hybrid_verifier
from cadcpp.models.draft_quality import agreement, write_texts
from cadcpp.modes import Speculative
from cadcpp.residency.memory_plan import make_plan
from cadcpp.runtime.session import Session
from cadcpp.tree.limits import limit_tree
from tests.real.test_planned_memory import SHORT, measure

pytestmark = pytest.mark.real

PROMPTS = ("The capital of France is", "def add(a, b):\n    return", "Once upon a time there was a dragon who")
DRAWN = SamplingConfig(seed=3)
GREEDY = SamplingConfig(temperature=0.0)


@pytest.fixture(scope="module")
def hybrid(models_dir: Path, making: Callable[[], AbstractContextManager[None]]) -> Path:
    with making():
        return hybrid_verifier(models_dir, size_bytes=300_000_000)


def test_it_writes_what_smollm2_writes(hybrid: Path, target: Path) -> None:
    """But for ties, since the last digits of attention differ."""
    texts, _ = write_texts(target, None)
    assert agreement(hybrid, texts) > 0.97


@pytest.mark.parametrize("limited", [False, True], ids=["in memory", "streamed"])
def test_chains_of_drafts_change_no_text(hybrid: Path, demo: DemoPair, limited: bool) -> None:
    headers = read_header(hybrid), read_header(demo.draft)
    ram = make_plan(*headers, ram=1 << 40, n_ctx=512, rows=64).fixed + (headers[0].n_bytes // 2 if limited else 1 << 30)

    def write(speculative: Speculative) -> tuple[list[list[int]], int]:
        config = SessionConfig(
            n_ctx=512, n_threads=1, ram=ram, speculative=speculative, fallback="none", tree=limit_tree(12)
        )
        with Session(hybrid, demo.draft, config) as session:
            assert session.plan.streams == limited
            chunks = [
                list(session.stream(session.model.tokenize(prompt), sampling, 20))
                for prompt in PROMPTS
                for sampling in (GREEDY, DRAWN)
            ]
        return [[token for chunk in text for token in chunk.tokens] for text in chunks], sum(map(len, chunks))

    (plain, n_plain), (drafted, n_drafted), (staged, _) = (write(mode) for mode in ("off", "draft", "staged"))
    assert drafted == plain and staged == plain
    assert n_drafted < 0.7 * n_plain


def test_it_takes_the_memory_that_is_planned(hybrid: Path, demo: DemoPair) -> None:
    """With trees of the size that is planned: the cost model's are as small as pays, and take less."""
    found = measure(hybrid, demo.draft, "none", SHORT)
    assert found["measured"] == pytest.approx(found["planned"], rel=0.03)
