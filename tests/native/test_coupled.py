"""Coupled draws: the same text with any draft or none, more drafts that are right, and probabilities as they were."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cadcpp.config import SamplingConfig
from cadcpp.draft.base import DraftedTree, Drafter, WithoutModel
from cadcpp.draft.branch_pacer import BranchPacer
from cadcpp.draft.model_drafter import ModelDrafter
from cadcpp.draft.ngram_drafter import NgramDrafter
from cadcpp.draft.staged import StagedDrafter
from cadcpp.native import sampler as sampling
from cadcpp.native.sampler import Sampler, draws
from cadcpp.ngram.predictor import NgramPredictor
from cadcpp.sampling.coupling import Coupling
from cadcpp.sampling.gumbel import gumbel, rough_gumbel
from cadcpp.telemetry.stats import Stats
from cadcpp.tree.limits import DraftBudget
from tests.support.chi2 import p_value
from tests.support.rig import Rig
from tests.support.vocab import random_text

N, ROWS, N_DRAWS = 60, 24, 4000
FILTERS = [
    SamplingConfig(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05),
    SamplingConfig(temperature=1.0, top_k=50, top_p=1.0, min_p=0.0),
    SamplingConfig(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0),
]


@pytest.fixture(scope="module")
def rig(tiny: Callable[..., Path]) -> Iterator[Rig]:
    with closing(Rig(tiny("llama", type_name="Q8_0"), n_ctx=512, max_rows=32, n_batch=32)) as rig:
        yield rig


@pytest.fixture(scope="module")
def model_drafter(rig: Rig, tiny: Callable[..., Path]) -> ModelDrafter:
    return rig.model_drafter(tiny("llama", noise=0.02))


@pytest.fixture(params=["draft", "llmcad", "staged", "ngram"])
def drafter(rig: Rig, model_drafter: ModelDrafter, request: pytest.FixtureRequest) -> Drafter:
    context, ends = model_drafter.context, rig.model.end_tokens()
    context.clear()
    drafters: dict[str, Callable[[], Drafter]] = {
        "draft": lambda: ModelDrafter(context, ends),
        "llmcad": lambda: ModelDrafter(context, ends, start_growth=BranchPacer),
        "staged": lambda: StagedDrafter(context, ends, NgramPredictor()),
        "ngram": lambda: NgramDrafter(NgramPredictor(), ends),
    }
    return drafters[request.param]()


class Misled(WithoutModel):
    """Drafts as another drafter would for a text that is drawn in another way."""

    def __init__(self, drafter: Drafter, mislead: Callable[[Coupling], Coupling | None]) -> None:
        self._drafter, self._mislead = drafter, mislead

    def grow(self, ids: Sequence[int], budget: DraftBudget) -> DraftedTree:
        assert budget.coupling is not None
        return self._drafter.grow(ids, replace(budget, coupling=self._mislead(budget.coupling)))

    def rollback(self) -> None:
        self._drafter.rollback()


@pytest.mark.parametrize("temperature", [0.8, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_no_draft_changes_the_text(rig: Rig, drafter: Drafter, seed: int, temperature: float) -> None:
    prompt = random_text(seed, 12) * 3
    sampling = SamplingConfig(seed=seed, temperature=temperature, repeat_penalty=1.0 + 0.2 * (seed % 2))
    assert sampling.sampler == "coupled"
    whole = rig.generate(prompt, N, sampling)
    assert rig.generate(prompt, N, sampling, drafter, ROWS) == whole
    assert whole != rig.generate(prompt, N, replace(sampling, seed=seed + 1))


@pytest.mark.parametrize("filters", FILTERS[:2])
def test_more_drafts_are_right_when_the_noise_is_known(
    rig: Rig, model_drafter: ModelDrafter, filters: SamplingConfig
) -> None:
    """The controls: drafts for the noise of another seed, one position off, and for none. The text is the same."""
    ways: dict[str, Callable[[Coupling], Coupling | None]] = {
        "right": lambda c: c,
        "other seed": lambda c: replace(c, seed=c.seed + 1),
        "one off": lambda c: replace(c, position=c.position + 1),
        "unknown": lambda c: None,
    }
    passes = dict.fromkeys(ways, 0)
    for seed in range(2):
        prompt, sampling = random_text(seed, 40), replace(filters, seed=seed)
        texts = []
        for name, mislead in ways.items():
            model_drafter.context.clear()
            drafter = Misled(ModelDrafter(model_drafter.context, rig.model.end_tokens()), mislead)
            stats = Stats()
            texts.append(rig.generate(prompt, 2 * N, sampling, drafter, ROWS, stats=stats))
            passes[name] += stats.passes
        assert all(text == texts[0] for text in texts)
    right = passes.pop("right")
    assert right * 1.2 < min(passes.values())


def undecided(rig: Rig) -> tuple[int, NDArray[np.float64]]:
    """A row of a pass after which many tokens are likely, and its logits."""
    context, text = rig.context, random_text(3, 32)
    context.clear()
    context.batch.clear()
    context.batch.add(text, 0, 0, 1, True)
    context.decode()
    logits = context.logits(len(text)).astype(np.float64)
    row = max(range(len(text)), key=lambda row: np.count_nonzero(probabilities(logits[row], FILTERS[0])))
    return row, logits[row]


def probabilities(logits: NDArray[np.float64], filters: SamplingConfig) -> NDArray[np.float64]:
    """What llama.cpp's filters leave, one after the other, and the temperature then."""
    order = np.argsort(-logits)[: filters.top_k or None]
    p = np.exp(logits[order] - logits[order[0]])
    p /= p.sum()
    order = order[: int(np.searchsorted(np.cumsum(p), filters.top_p)) + 1]
    order = order[p[: len(order)] >= filters.min_p * p[0]]
    left = np.zeros(len(logits))
    left[order] = np.exp((logits[order] - logits[order[0]]) / filters.temperature)
    return np.asarray(left / left.sum())


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("axis", ["seed", "position"])
def test_draws_follow_the_filtered_probabilities(rig: Rig, filters: SamplingConfig, axis: str) -> None:
    """Over many seeds, and over many positions of one; a draw without the filters is told apart."""
    row, logits = undecided(rig)
    seen = np.zeros(rig.model.n_vocab, np.int64)
    one = Sampler(rig.model.n_vocab, replace(filters, seed=1))
    for i in range(N_DRAWS):
        with closing(Sampler(rig.model.n_vocab, replace(filters, seed=i))) as another:
            seen[(another if axis == "seed" else one).draw(rig.context, row)] += 1
    one.close()
    assert p_value([(seen, probabilities(logits, filters))]) > 0.001
    other = replace(FILTERS[2], temperature=1.0 if filters.top_k else 0.7)
    assert p_value([(seen, probabilities(logits, other))]) < 1e-6


def test_llama_cpps_draws_can_be_asked_for(rig: Rig) -> None:
    prompt, texts = random_text(1, 20), {}
    for sampler in ("coupled", "llama"):
        texts[sampler] = rig.generate(prompt, N, SamplingConfig(seed=1, sampler=sampler))
    assert texts["coupled"] != texts["llama"]
    assert SamplingConfig(sampler="llama").coupling() is None
    assert SamplingConfig(temperature=0.0).coupling() is None


def put_logits(rig: Rig, kind: str) -> int:
    """The row of a pass whose logits are others now: they repeat a few numbers, or are none."""
    row, logits = undecided(rig)
    seen, rng = rig.context.logits_at(row), np.random.default_rng(5)
    equal = rng.permutation(np.repeat(np.linspace(-3, 4, 16), len(seen) // 16 + 1))[: len(seen)]
    seen[:] = {"usual": logits, "equal": equal, "none": np.full(len(seen), np.nan)}[kind]
    return row


@pytest.mark.parametrize("kind", ["usual", "equal"])
def test_the_likeliest_token_is_that_of_llama_cpps_greedy_sampler(rig: Rig, kind: str) -> None:
    row = put_logits(rig, kind)
    with closing(Sampler(rig.model.n_vocab, SamplingConfig(temperature=0.0))) as greedy:
        assert greedy.draw(rig.context, row) == draws(greedy.handle, rig.model.n_vocab, None)(rig.context, row)
        assert greedy.draw(rig.context, row) == int(np.argmax(rig.context.logits_at(row)))


@pytest.mark.parametrize("filters", FILTERS)
def test_a_draw_does_not_depend_on_how_many_tokens_the_filters_are_told_of(rig: Rig, filters: SamplingConfig) -> None:
    row, n_vocab = put_logits(rig, "usual"), rig.model.n_vocab
    with closing(Sampler(n_vocab, filters)) as one:
        few, some = one.draw, draws(one.handle, n_vocab, filters.coupling(), filters.top_k // 2 or 2)
        every = draws(one.handle, n_vocab, filters.coupling())
        drawn = [(few(rig.context, row), every(rig.context, row), some(rig.context, row)) for _ in range(200)]
    assert [a for a, _, _ in drawn] == [b for _, b, _ in drawn]
    assert [a for a, _, _ in drawn] != [c for _, _, c in drawn], "too few would be seen"


@pytest.mark.parametrize("kind", ["usual", "equal"])
def test_rough_noise_does_not_decide_what_its_last_bits_would(
    rig: Rig, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draws are the same with other last bits; and with the noise of others they are not."""

    def drawn() -> list[int]:
        row = put_logits(rig, kind)
        with closing(Sampler(rig.model.n_vocab, FILTERS[0])) as one:
            return [one.draw(rig.context, row) for _ in range(200)]

    def off(by: float) -> None:
        rng = np.random.default_rng(1)
        monkeypatch.setattr(
            sampling, "rough_gumbel", lambda *of: rough_gumbel(*of) + by * rng.standard_normal(len(of[2]))
        )

    usual = drawn()
    off(1e-9)
    assert drawn() == usual
    off(1.0)
    assert drawn() != usual


def test_where_noise_is_nearly_equal_the_exact_one_decides(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    row = put_logits(rig, "usual")
    seen, best = rig.context.logits_at(row), np.array([3, 4])
    exact = gumbel(FILTERS[2].seed, 0, best)
    seen[:] = -50
    seen[best] = 30 - exact  # they lie within the last bits of a float32
    with closing(Sampler(rig.model.n_vocab, FILTERS[2])) as one:
        token = one.draw(rig.context, row)
    monkeypatch.setattr(sampling, "rough_gumbel", lambda *of: gumbel(*of) - 1e-7 * (of[2] == token))
    with closing(Sampler(rig.model.n_vocab, FILTERS[2])) as one:
        assert one.draw(rig.context, row) == token == best[np.argmax(seen[best].astype(np.float64) + exact)]


def test_logits_that_are_no_numbers_end_in_some_token(rig: Rig) -> None:
    row = put_logits(rig, "none")
    for filters in (*FILTERS, SamplingConfig(temperature=0.0)):
        with closing(Sampler(rig.model.n_vocab, filters)) as one:
            assert 0 <= one.draw(rig.context, row) < rig.model.n_vocab
