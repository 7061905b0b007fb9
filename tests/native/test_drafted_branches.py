"""Drafts with recurrent state that draft branches: each node goes on in a copy of its parent's state."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.draft.model_drafter import ModelDrafter
from cadcpp.errors import NativeError
from cadcpp.gguf.header import read_header
from cadcpp.native.context import Context, Stopped
from cadcpp.native.lib import api
from cadcpp.residency import states
from cadcpp.residency.context_shape import draft_shape
from cadcpp.residency.states import draft_states
from cadcpp.runtime.session import Session
from cadcpp.sampling.next_tokens import softmax
from cadcpp.tree.limits import DraftBudget, limit_tree
from cadcpp.tree.token_tree import TokenTree
from tests.native.test_states import ALL, Interrupted, is_trunk, write
from tests.support.rig import Rig
from tests.support.vocab import random_text

N, ROWS, STATES = 40, 24, 12
BUDGET = DraftBudget(max_size=ROWS, max_depth=12)
DRAWN = SamplingConfig(temperature=0.8, seed=5)
GREEDY = SamplingConfig(temperature=0.0)


@pytest.fixture(scope="module", params=ALL)
def rig(tiny: Callable[..., Path], request: pytest.FixtureRequest) -> Iterator[Rig]:
    path = tiny(request.param)
    with closing(Rig(path, n_ctx=256, max_rows=32, n_batch=96, n_snapshots=9, n_drafted=STATES)) as rig:
        yield rig


@pytest.fixture(scope="module")
def drafter(rig: Rig, tiny: Callable[..., Path]) -> ModelDrafter:
    return rig.model_drafter(tiny(rig.model.header.architecture.replace("-", "_"), noise=0.05))


@pytest.fixture(scope="module")
def oracle(rig: Rig, drafter: ModelDrafter) -> Iterator[Context]:
    """The draft's model alone."""
    with closing(rig.model_drafter(drafter.context.model.path)) as other:
        yield other.context


def chances(oracle: Context, text: list[int], path: list[int]) -> float:
    """Log probability of a path after a text, one token at a time."""
    oracle.clear()
    found = 0.0
    for i, token in enumerate([*text, *path]):
        if i >= len(text):
            tokens, logp = softmax(oracle.logits(1)[0], 1.0)
            found += float(logp[tokens == token].max(initial=-np.inf))  # of the unlikeliest nothing is said
        oracle.batch.clear()
        oracle.batch.add([token], i, 0, 1, True)
        oracle.decode()
    return found


def is_the_models_own(oracle: Context, text: list[int], tree: TokenTree) -> bool:
    """Whether a tree's probabilities are those of its paths, each evaluated by itself."""
    paths = [[int(tree.token[row]) for row in tree.ancestors(leaf)[1:]] for leaf in tree.leaves()]
    expected = [chances(oracle, text, path) for path in paths]
    return bool(np.allclose(tree.logp[tree.leaves()], expected, atol=2e-3))


def test_every_node_is_evaluated_after_its_own_path(rig: Rig, drafter: ModelDrafter, oracle: Context) -> None:
    """... in the first tree of a text, and in those that go on from a part of the last one."""
    text = random_text(1, 30)
    drafter.rollback()
    tree = drafter.grow(text, BUDGET).tree
    assert len(tree.leaves()) > 1 and is_the_models_own(oracle, text, tree)
    n_kept = 0
    for leaf in (0, -1, 0, 1):
        path = [int(tree.token[row]) for row in tree.ancestors(tree.leaves()[leaf])[1:]]
        for n in (1, 2):
            text += path[:n]
            path = path[n:]
            drafted = drafter.grow(text, BUDGET)
            n_kept += drafted.n_kept
            assert is_the_models_own(oracle, text, drafted.tree)
        tree = drafted.tree
    text += [7]  # what was not drafted
    assert is_the_models_own(oracle, text, drafter.grow(text, BUDGET).tree)
    assert n_kept > 4


def test_control_a_state_of_another_path_is_seen(drafter: ModelDrafter, oracle: Context) -> None:
    text = random_text(1, 30)
    tree = drafter.grow(text, BUDGET).tree
    assert not is_the_models_own(oracle, [*text[:-2], *text[-1:]], tree)


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_the_text_is_that_of_plain_decoding(rig: Rig, drafter: ModelDrafter, sampling: SamplingConfig) -> None:
    prompt = random_text(2, 40)
    drafter.rollback()
    assert write(rig.engine(drafter, ROWS), rig, prompt, N, sampling) == write(rig.engine(), rig, prompt, N, sampling)


@pytest.mark.parametrize("seed", range(4))
def test_interruptions_change_no_text(
    rig: Rig, drafter: ModelDrafter, oracle: Context, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    prompt = random_text(7, 40)
    whole = write(rig.engine(), rig, prompt, N)
    engine, rng = rig.engine(drafter, ROWS), np.random.default_rng(seed)
    with monkeypatch.context() as patch, pytest.raises((NativeError, Stopped)):
        patch.setattr(api, "llama_decode", Interrupted(engine, int(rng.integers(4, 30)), int(rng.integers(3))))
        write(engine, rig, [*prompt, *random_text(seed, 3)], N)
    assert is_trunk(engine.verifier)
    assert is_the_models_own(oracle, prompt, drafter.grow(prompt, BUDGET).tree)
    assert write(engine, rig, prompt, N) == whole


def test_a_session_drafts_branches_where_states_are_small(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is drafted ahead while a pass waits is of the same tree."""
    monkeypatch.setattr(states, "_OF_DRAFT", 4)  # a tiny model's states are not small beside its weights
    config = SessionConfig(n_ctx=256, n_threads=1, fallback="none", speculative="draft", tree=limit_tree(ROWS))
    plain = SessionConfig(n_ctx=256, n_threads=1, speculative="off")
    texts, widest = list[list[int]](), 1
    for draft, one in ((tiny("lfm2", noise=0.05), config), (None, plain)):
        with Session(tiny("llama"), draft, one) as session:
            chunks = list(session.stream(random_text(1, 40), DRAWN, 2 * N))
        texts.append([token for chunk in chunks for token in chunk.tokens])
        widest = max([widest, *(len(chunk.round.tree.leaves()) for chunk in chunks if chunk.round)])
    assert texts[0] == texts[1] and widest > 1


def test_states_of_a_draft_take_a_small_part_of_its_memory(tiny: Callable[..., Path]) -> None:
    header = read_header(tiny("lfm2"))
    kept = draft_states(header)
    assert kept is not None and kept.n_chains > 1
    shape = draft_shape(256, ROWS, states=kept)
    assert shape.n_seq == kept.n_chains and shape.states_bytes(header) <= header.n_bytes / 32
    assert draft_states(read_header(tiny("llama"))) is None
