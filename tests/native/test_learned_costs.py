"""What a pair of models was measured to cost, kept for the next session."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.policy.drafter_choice import DrafterChoice
from cadcpp.runtime.session import Session
from cadcpp.telemetry.stats import Stats
from tests.support.vocab import random_text

GREEDY = SamplingConfig(temperature=0.0)


def write(verifier: Path, draft: Path, n: int, config: SessionConfig) -> tuple[list[int], DrafterChoice]:
    """A text, and the policy as it began."""
    with Session(verifier, draft, config) as session:
        policy = session.engine.policy
        assert isinstance(policy, DrafterChoice)
        began = DrafterChoice()
        for part, other in ((policy.verify, began.verify), (policy.model, began.model), (policy.text, began.text)):
            other.recall(part.learned())
        tokens = [t for chunk in session.stream(random_text(1, 30), GREEDY, n) for t in chunk.tokens]
    return tokens, began


@pytest.fixture
def pair(tiny: Callable[..., Path]) -> tuple[Path, Path]:
    return tiny(type_name="Q8_0"), tiny(noise=0.05)


def test_the_next_session_starts_from_what_was_measured(pair: tuple[Path, Path], state: Path) -> None:
    config = SessionConfig(n_ctx=512, n_threads=2)  # by default their number depends on what else the machine does
    first, before = write(*pair, 200, config)
    second, after = write(*pair, 200, config)
    assert first == second
    assert not before.verify.known and before.model.trials > 0
    assert after.verify.known and after.model.trials < before.model.trials
    assert np.isfinite(after.verify.estimate()).all() and (state / "cadcpp" / "costs.json").stat().st_size < 20_000


@pytest.mark.parametrize(("n_threads", "pipeline"), [(1, True), (2, False)], ids=["threads", "pipeline"])
def test_what_was_measured_with_other_settings_does_not_count(
    pair: tuple[Path, Path], n_threads: int, pipeline: bool
) -> None:
    config = SessionConfig(n_ctx=512, n_threads=2)
    write(*pair, 200, config)
    _, began = write(*pair, 8, replace(config, n_threads=n_threads, pipeline=pipeline))
    assert not began.verify.known


def test_a_reply_too_short_to_learn_from_keeps_nothing(pair: tuple[Path, Path], state: Path) -> None:
    write(*pair, 1, SessionConfig(n_ctx=512))
    assert not (state / "cadcpp" / "costs.json").exists()


@pytest.mark.parametrize("nonsense", [[], {"verify": {}}, {"verify": {"rows": [10**9], "seconds": [1], "count": [1]}}])
def test_a_damaged_file_is_no_fault(pair: tuple[Path, Path], state: Path, nonsense: object) -> None:
    write(*pair, 200, SessionConfig(n_ctx=512))
    path = state / "cadcpp" / "costs.json"
    path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_text()), nonsense)))
    tokens, began = write(*pair, 200, SessionConfig(n_ctx=512))
    assert len(tokens) == 200 and not began.verify.known


@pytest.mark.parametrize(("read_s", "reads"), [(9.0, False), (0.0, True)], ids=["dear", "control"])
def test_a_long_text_is_not_read_for_a_try_that_may_be_in_vain(
    pair: tuple[Path, Path], read_s: float, reads: bool
) -> None:
    """As if drafts had not paid in the session before."""
    config, stats = SessionConfig(n_ctx=512, n_threads=2), Stats()
    with Session(*pair, config) as session:
        policy = session.engine.policy
        assert isinstance(policy, DrafterChoice)
        model = policy.model
        model.trials, model.early_estimate, model.read_s = 0, False, read_s
        model.tokens[:], model.node_s, model.plain_rounds = 1.0, 1.0, model.patience
        list(session.stream(text := random_text(1, 300), GREEDY, 8, stats=stats))
        assert (session.engine.drafter.behind(text) < len(text)) == reads
    assert (stats.draft_decodes > 0) == reads
