"""Rounds of a tiny pair: what the caches hold afterwards, and what stops, failures and limits leave behind."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cadcpp.config import SamplingConfig
from cadcpp.draft.base import Drafter
from cadcpp.draft.model_drafter import ModelDrafter
from cadcpp.draft.ngram_drafter import NgramDrafter
from cadcpp.draft.staged import StagedDrafter
from cadcpp.errors import ConfigError, ContextFull, NativeError
from cadcpp.kv.cache import Cache
from cadcpp.native.lib import api
from cadcpp.ngram.predictor import NgramPredictor
from cadcpp.policy.base import FixedSize, Policy
from cadcpp.policy.cost_model import CostModel
from cadcpp.policy.llmcad import AdaptiveFallback
from cadcpp.residency.context_shape import ContextShape
from cadcpp.runtime.engine import Engine
from cadcpp.tree.token_tree import TokenTree
from cadcpp.verify.verifier import Verifier
from tests.support.growing import budget
from tests.support.passes import begin, check
from tests.support.rig import Rig
from tests.support.synthetic import SyntheticDrafter
from tests.support.trees import random_tree
from tests.support.vocab import N_VOCAB, random_text

GREEDY = SamplingConfig(temperature=0.0)
N, ROWS = 40, 24


@pytest.fixture(scope="module")
def rig(tiny: Callable[..., Path]) -> Iterator[Rig]:
    with closing(Rig(tiny("llama", type_name="Q8_0"), n_ctx=256, max_rows=32, n_batch=32)) as rig:
        yield rig


@pytest.fixture(scope="module")
def model_drafter(rig: Rig, tiny: Callable[..., Path]) -> ModelDrafter:
    return rig.model_drafter(tiny("llama", noise=0.02))


@pytest.fixture(params=["draft", "staged"])
def drafter(rig: Rig, model_drafter: ModelDrafter, request: pytest.FixtureRequest) -> ModelDrafter:
    context, ends = model_drafter.context, rig.model.end_tokens()
    context.clear()
    return ModelDrafter(context, ends) if request.param == "draft" else StagedDrafter(context, ends, NgramPredictor())


def holds_exactly_the_trunk(cache: Cache) -> bool:
    """Whether every sequence holds a start of the trunk without a hole, sequence 0 all of it, and nothing else."""
    memory, n = cache.context.memory, len(cache)
    spans = [
        (api.llama_memory_seq_pos_min(memory, seq), api.llama_memory_seq_pos_max(memory, seq))
        for seq in range(cache.context.shape.n_seq)
    ]
    return spans[0] == ((0, n - 1) if n else (-1, -1)) and all(
        span == (-1, -1) or (span[0] == 0 and span[1] < n) for span in spans
    )


def write(engine: Engine, rig: Rig, prompt: list[int], n: int, sampling: SamplingConfig = GREEDY) -> list[int]:
    with closing(rig.sampler(prompt, sampling)) as sampler:
        return [token for result in engine.rounds(prompt, sampler, n) for token in result.tokens]


@pytest.mark.parametrize("seed", [0, 2**32 - 2, 2**32 - 1])  # the last is "at random" to llama.cpp
def test_a_seed_gives_the_same_text_each_time(rig: Rig, seed: int) -> None:
    sampling = SamplingConfig(temperature=2.0, seed=seed)
    texts = [rig.generate([5, 6, 7], 20, sampling) for _ in range(3)]
    assert texts[0] == texts[1] == texts[2]


# what the caches hold ---------------------------------------------------------------------------------


def test_reading_a_text_first_changes_nothing_but_when_it_is_evaluated(drafter: ModelDrafter) -> None:
    ids, limits = random_text(3, 120), budget(ROWS, 8)
    at_once = drafter.grow(ids, limits).tree
    drafter.cache.clear()
    drafter.rollback()
    drafter.read(ids, drafter.behind(ids))
    assert drafter.cache.tokens == ids[:-1] and holds_exactly_the_trunk(drafter.cache)
    n_decodes = drafter.n_decodes
    after = drafter.grow(ids, limits).tree
    assert np.array_equal(at_once.token, after.token) and after.logp == pytest.approx(at_once.logp, abs=1e-4)
    path = [int(after.token[1])]  # a round's worth of text is left to grow, which goes on with what it knows
    drafter.read([*ids, *path], drafter.behind([*ids, *path]))
    assert drafter.cache.tokens == ids and drafter.n_decodes > n_decodes
    assert drafter.grow([*ids, *path], limits).n_kept > 0


@pytest.mark.parametrize("seed", range(12))
def test_the_verifier_keeps_exactly_the_trunk(rig: Rig, seed: int) -> None:
    """Random trees, random walks, now and then another text."""
    rng = np.random.default_rng(seed)
    rig.context.clear()
    verifier, ids = Verifier(rig.context), random_text(seed, 20)
    for _ in range(12):
        if rng.random() < 0.2:
            ids = ids[: int(rng.integers(1, len(ids)))] + random_text(seed, int(rng.integers(1, 6)))
        room = verifier.room(begin(verifier, ids))
        tree = random_tree(rng, int(rng.integers(1, min(32, room) + 1)), 5, ids[-1])
        below = tree.children()

        def draw(
            _: object, index: int, tail: int = len(ids), tree: TokenTree = tree, below: list[list[int]] = below
        ) -> int:
            row = index - (tail - len(verifier.cache) - 1)
            return int(tree.token[rng.choice(below[row])]) if below[row] and rng.random() < 0.8 else 350

        ids += check(verifier, ids, tree, draw).tokens(tree)
        assert ids[: len(verifier.cache)] == verifier.cache.tokens
        assert holds_exactly_the_trunk(verifier.cache)
        verifier.rollback()
        assert holds_exactly_the_trunk(verifier.cache)


@pytest.mark.parametrize("seed", range(6))
def test_both_caches_keep_exactly_the_trunk(rig: Rig, drafter: ModelDrafter, seed: int) -> None:
    engine, rng, prompt = rig.engine(drafter, ROWS), np.random.default_rng(seed), random_text(seed, 50)
    for turn in range(4):
        with closing(rig.sampler(prompt, SamplingConfig(seed=turn))) as sampler:
            rounds = engine.rounds(prompt, sampler, N)
            new = [
                token for result, _ in zip(rounds, range(rng.integers(1, 8)), strict=False) for token in result.tokens
            ]
            rounds.close()
        assert holds_exactly_the_trunk(engine.verifier.cache)
        assert holds_exactly_the_trunk(drafter.cache)
        prompt = [*prompt, *new, *random_text(turn, 3)][: int(rng.integers(20, 100))]


@pytest.mark.parametrize("policy", [CostModel, AdaptiveFallback])
@pytest.mark.parametrize("seed", range(3))
def test_no_policy_changes_the_text(rig: Rig, drafter: ModelDrafter, seed: int, policy: Callable[[], Policy]) -> None:
    prompt, sampling = random_text(seed, 40), SamplingConfig(seed=seed) if seed else GREEDY
    whole = write(rig.engine(), rig, prompt, N, sampling)
    engine = rig.engine(drafter, ROWS)
    engine.policy = policy()
    assert write(engine, rig, prompt, N, sampling) == whole
    assert drafter.n_decodes > 0


@pytest.mark.parametrize("policy", [None, CostModel])
@pytest.mark.parametrize("seed", range(4))
def test_drafting_from_the_text_itself_does_not_change_it(
    rig: Rig, seed: int, policy: Callable[[], Policy] | None
) -> None:
    prompt = random_text(seed, 12) * 4
    sampling = SamplingConfig(seed=seed, temperature=0.3, top_k=3) if seed % 2 else GREEDY
    whole = write(rig.engine(), rig, prompt, 100, sampling)
    engine = rig.engine(NgramDrafter(NgramPredictor(), [2]), ROWS)
    engine.policy = policy() if policy else FixedSize()
    assert write(engine, rig, prompt, 100, sampling) == whole


# stops ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_rounds", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_stopping_between_rounds_does_not_change_the_text(
    rig: Rig, drafter: ModelDrafter, seed: int, n_rounds: int
) -> None:
    prompt = random_text(seed, 40)
    whole = write(rig.engine(), rig, prompt, N)
    engine = rig.engine(drafter, ROWS)
    text: list[int] = []
    while len(text) < len(whole):
        with closing(rig.sampler(prompt, GREEDY)) as sampler:
            rounds = engine.rounds(prompt + text, sampler, N - len(text))
            for result, _ in zip(rounds, range(n_rounds), strict=False):
                text += result.tokens
            rounds.close()
    assert text == whole


@pytest.mark.parametrize("name", ["grow", "evaluate", "commit"])
def test_an_interrupt_inside_a_round_does_not_change_the_text(
    rig: Rig, drafter: ModelDrafter, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    prompt = random_text(5, 40)
    whole = write(rig.engine(), rig, prompt, N)
    engine = rig.engine(drafter, ROWS)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        owner = ModelDrafter if name == "grow" else Verifier
        patch.setattr(owner, name, interrupted(getattr(owner, name), after=3))
        write(engine, rig, prompt, N)
    assert write(engine, rig, prompt, N) == whole


def interrupted(method: Callable[..., object], after: int) -> Callable[..., object]:
    """The method, which at its ``after``-th call does its work and is then interrupted."""
    calls = iter(range(after - 1))

    def wrapper(*args: object) -> object:
        result = method(*args)
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return result

    return wrapper


# failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("does_its_work", [False, True], ids=["nothing decoded", "decoded, then failed"])
@pytest.mark.parametrize("after", [1, 2, 3, 7, 12])
def test_a_failed_decode_leaves_the_engine_usable(
    rig: Rig, drafter: ModelDrafter, monkeypatch: pytest.MonkeyPatch, after: int, does_its_work: bool
) -> None:
    prompt = random_text(6, 40)
    whole = write(rig.engine(), rig, prompt, N)
    engine, decode, calls = rig.engine(drafter, ROWS), api.llama_decode, iter(range(after - 1))

    def failing(*args: object) -> int:
        if next(calls, None) is not None or does_its_work:
            decode(*args)
        return 0 if next(calls, None) is not None else -3

    with monkeypatch.context() as patch, pytest.raises(NativeError, match="code -3"):
        patch.setattr(api, "llama_decode", failing)
        write(engine, rig, prompt, N)
    assert holds_exactly_the_trunk(engine.verifier.cache) and holds_exactly_the_trunk(drafter.cache)
    assert write(engine, rig, prompt, N) == whole


# limits: an error, where llama.cpp would end the process ----------------------------------------------


def test_a_batch_too_large(rig: Rig) -> None:
    rig.context.batch.clear()
    with pytest.raises(ConfigError, match="capacity of 64"):
        rig.context.batch.add([1] * 65, 0, 0, 1, False)


def test_more_logits_than_the_context_was_made_for(rig: Rig) -> None:
    rig.context.clear()
    rig.context.batch.clear()
    rig.context.batch.add([1] * 33, 0, 0, 1, True)
    with pytest.raises(ConfigError, match="33 rows ask for logits"):
        rig.context.decode()


def test_more_leaves_than_sequences(rig: Rig) -> None:
    rig.context.clear()
    tree = TokenTree.build([1, *range(3, 36)], [-1, *[0] * 33], [0.0, *[-1.0] * 33])
    with pytest.raises(ConfigError, match="33 leaves"):
        check(Verifier(rig.context), [1], tree, lambda *_: 0)


def test_a_cache_without_room(rig: Rig) -> None:
    rig.context.clear()
    cache = Cache(rig.context)
    with pytest.raises(NativeError, match="llama_decode of"):
        cache.prefill(random_text(0, 600), 600)
    cache.rollback()
    assert holds_exactly_the_trunk(cache)


@pytest.mark.parametrize("n_seq", [0, 257])
def test_a_number_of_sequences_that_llama_cpp_does_not_have(n_seq: int) -> None:
    with pytest.raises(ConfigError, match="n_seq"):
        ContextShape(n_cells=64, n_batch=8, n_outputs=1, n_seq=n_seq)


def test_a_prompt_that_fills_the_context(rig: Rig, drafter: ModelDrafter) -> None:
    with pytest.raises(ContextFull, match="256 tokens"):
        write(rig.engine(drafter, ROWS), rig, random_text(0, 256), 1)


@pytest.mark.parametrize("n_prompt", [255, 254, 241, 200])
@pytest.mark.parametrize("synthetic", [False, True])
def test_text_up_to_the_last_cell(rig: Rig, drafter: ModelDrafter, n_prompt: int, synthetic: bool) -> None:
    prompt = random_text(n_prompt, n_prompt)
    whole = write(rig.engine(), rig, prompt, 1000)
    used: Drafter = SyntheticDrafter(prompt + whole, decoys=(3, N_VOCAB)) if synthetic else drafter
    assert write(rig.engine(used, 32), rig, prompt, 1000) == whole
    assert len(prompt + whole) == 256


@pytest.mark.parametrize(("prompt", "n"), [([], 1), ([1], 0)])
def test_nothing_to_do(rig: Rig, prompt: list[int], n: int) -> None:
    with pytest.raises(ConfigError):
        write(rig.engine(), rig, prompt, n)


def test_logits_are_a_view(rig: Rig) -> None:
    """No copy of n_vocab floats per row: the array is llama.cpp's own buffer."""
    rig.context.clear()
    rig.context.batch.clear()
    rig.context.batch.add([1, 2], 0, 0, 1, True)
    rig.context.decode()
    logits: NDArray[np.float32] = rig.context.logits(2)
    assert logits.shape == (2, N_VOCAB) and not logits.flags.owndata
