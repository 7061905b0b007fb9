"""A draft that is given up for the memory of a mixture's experts: the same text, then and in the next session."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cadcpp.gguf.header import read_header
from cadcpp.policy.drafter_choice import DrafterChoice
from cadcpp.residency.streaming_pager import StreamingPager
from cadcpp.telemetry.stats import Stats
from tests.support.mixtures import session, write

SHAPE: dict[str, Any] = {"n_layer": 4, "n_embd": 256, "n_ff": 512, "n_experts": 16, "n_used": 2}
N, SHARE = 48, 0.4
Pair = tuple[Path, Path]


@pytest.fixture
def pair(tiny: Callable[..., Path]) -> Pair:
    return tiny("mixture", **SHAPE), tiny("mixture", **SHAPE, noise=0.02)


@pytest.fixture
def plain(pair: Pair) -> list[int]:
    with session(pair[0], None, SHARE, speculative="off") as running:
        return write(running, N)


@pytest.fixture
def giving_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts are found to be in vain after three rounds, whatever was measured."""

    def judge(choice: DrafterChoice, spared: float) -> bool:
        assert 0 <= spared <= 1
        choice.given_up = choice.n_rounds >= 3
        choice.model.patience = 512
        return choice.given_up

    monkeypatch.setattr(DrafterChoice, "judge", judge)


@pytest.mark.usefixtures("giving_up")
def test_in_the_middle_of_a_text(pair: Pair, plain: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    given, stats = list[int](), Stats()
    give = StreamingPager.give

    def noting(pager: StreamingPager, n_bytes: int) -> None:
        given.append(n_bytes)
        give(pager, n_bytes)

    monkeypatch.setattr(StreamingPager, "give", noting)
    with session(*pair, SHARE) as running:
        draft, verifier = running.engine.threads.contexts
        assert write(running, N, stats=stats) == plain
        assert running.engine.threads.contexts == [verifier]
        assert given == [running.plan.drafting] and given[0] > read_header(pair[1]).n_bytes
        assert stats.draft_decodes > 0
        running.engine.stop()
        running.engine.rollback()
        assert write(running, N) == plain
    with pytest.raises(Exception, match="closed"):
        draft.handle  # type: ignore[attr-defined]  # noqa: B018


@pytest.fixture
def small(pair: Pair, tiny: Callable[..., Path]) -> Pair:
    """With a draft without which there is still too little memory."""
    return pair[0], tiny("mixture", n_layer=1)


@pytest.mark.usefixtures("giving_up")
def test_the_next_session_begins_without_it(
    small: Pair, plain: list[int], state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair = small
    with session(*pair, SHARE) as running:
        whole = running.plan
        write(running, N)
    caplog.clear()
    with session(*pair, SHARE) as running:
        left = running.plan
        assert left.left_out == read_header(pair[1]).n_bytes and left.drafting == 0
        assert left.experts > whole.experts and left.peak <= left.ram
        assert write(running, N) == plain
    assert [message for message in caplog.messages if message.startswith("cadcpp: ")] == [
        f"cadcpp: the draft is not loaded: {left.left_out_because}; speculative draft loads it all the same"
    ]
    with session(*pair, SHARE, speculative="draft") as running:
        assert running.plan.left_out == 0 and running.plan.draft
    with session(*pair, 2 * SHARE) as running:  # another budget, of which nothing is known
        assert running.plan.left_out == 0 and running.plan.draft


def test_a_first_session_with_few_experts_in_memory_begins_without_it(small: Pair, state: Path) -> None:
    """It is tried when so much was written that a trial is cheap."""
    with session(*small, 0.2) as running:
        assert running.plan.left_out and "as a rule" in running.plan.left_out_because
        text = write(running, N, stats=(stats := Stats()))
    assert stats.draft_decodes == 0
    with session(*small, 0.2) as running:
        assert running.plan.left_out and "as a rule" in running.plan.left_out_because  # nobody has tried it
    path = state / "cadcpp" / "costs.json"
    ((facts, known),) = json.loads(path.read_text()).items()
    assert known["choice"]["given_up"] and known["model"]["plain_rounds"] < known["model"]["patience"] == 512
    known["model"]["plain_rounds"] = 512
    path.write_text(json.dumps({facts: known}))
    with session(*small, 0.2) as running:
        assert running.plan.left_out == 0 and write(running, N) == text
    with session(*small, 0.2, speculative="draft") as running:
        assert running.plan.draft


@pytest.mark.usefixtures("giving_up")
def test_a_draft_without_which_all_would_fit_is_loaded(pair: Pair) -> None:
    """What fits is computed with other kernels, and the text must not depend on what was learned."""
    for _ in range(2):
        with session(*pair, SHARE) as running:
            assert running.plan.streams and running.plan.draft and not running.plan.left_out
            write(running, N)


@pytest.mark.usefixtures("giving_up")
def test_after_a_while_it_is_tried_again(small: Pair, plain: list[int], state: Path) -> None:
    pair = small
    with session(*pair, SHARE) as running:
        write(running, N)
    with session(*pair, SHARE) as running:
        assert running.plan.left_out and write(running, N, stats=(stats := Stats())) == plain
    assert stats.draft_decodes == 0
    path = state / "cadcpp" / "costs.json"
    (facts, known), *others = json.loads(path.read_text()).items()
    assert known["choice"]["given_up"] and not others
    known["model"]["plain_rounds"] = known["model"]["patience"]
    path.write_text(json.dumps({facts: known}))
    stats = Stats()
    with session(*pair, SHARE) as running:
        assert running.plan.left_out == 0
        assert write(running, N, stats=stats) == plain
    assert stats.draft_decodes > 0


def test_control_a_draft_that_nobody_gave_up_is_loaded_again(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DrafterChoice, "judge", lambda *_: False)
    for _ in range(2):
        with session(*pair, SHARE) as running:
            write(running, N)
            assert running.plan.left_out == 0 and len(running.engine.threads.contexts) == 2
