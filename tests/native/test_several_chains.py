"""Several chains a pass, each from a copy of the text's state: the text is that of plain decoding."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.draft.base import Drafter
from cadcpp.draft.ngram_drafter import NgramDrafter
from cadcpp.errors import NativeError
from cadcpp.kv.state_cache import StateCache
from cadcpp.native.context import Context, Stopped
from cadcpp.native.lib import api, listening, quiet
from cadcpp.native.model import Model
from cadcpp.ngram.predictor import NgramPredictor
from cadcpp.residency import states
from cadcpp.residency.context_shape import ContextShape
from cadcpp.residency.states import States
from cadcpp.runtime.engine import Engine
from cadcpp.runtime.session import Session
from cadcpp.tree.limits import limit_tree
from cadcpp.tree.token_tree import TokenTree
from cadcpp.verify.verifier import Verifier
from tests.native.test_states import SNAPSHOTS, Interrupted, greedy, is_trunk, write
from tests.support.passes import begin, check
from tests.support.rig import Rig
from tests.support.vocab import random_text

N, ROWS, CHAINS = 48, 32, 4
DRAWN = SamplingConfig(temperature=0.8, seed=5)
GREEDY = SamplingConfig(temperature=0.0)


@pytest.fixture(scope="module", params=SNAPSHOTS)
def rig(tiny: Callable[..., Path], request: pytest.FixtureRequest) -> Iterator[Rig]:
    path = tiny(request.param)
    with closing(Rig(path, n_ctx=256, max_rows=ROWS, n_batch=96, n_snapshots=9, n_chains=CHAINS)) as rig:
        yield rig


@pytest.fixture
def drafter(rig: Rig, tiny: Callable[..., Path]) -> Drafter:
    """One whose first guess is often wrong, and whose second is right."""
    return rig.model_drafter(tiny("llama", seed=3))


@pytest.fixture
def winners(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of the passes with several chains the one that went on."""
    found, commit = list[int](), StateCache.commit

    def noting(self: StateCache, tokens: list[int], own: Sequence[int] = (), n_seq: int = 1, winner: int = 0) -> None:
        found.extend([winner] * (n_seq > 1))
        commit(self, tokens, own, n_seq, winner)

    monkeypatch.setattr(StateCache, "commit", noting)
    return found


class Scripted(NgramDrafter):
    """Drafts chains of which one is right for some tokens, as a given text has them."""

    def __init__(self, whole: list[int]) -> None:
        super().__init__(NgramPredictor())
        self._whole, self._rng = whole, np.random.default_rng(0)

    def tree(self, n: int, n_right: int, winner: int, depth: int = 5) -> TokenTree:
        """After ``n`` tokens of the text; chain ``winner`` is right."""
        token, parent, logp = [self._whole[n - 1]], [-1], [0.0]
        for chain in range(CHAINS):
            above, right = 0, chain == winner
            for i in range(depth):
                true = self._whole[n + i] if n + i < len(self._whole) else 0
                right = right and i < n_right
                token.append(true if right else (true + 1 + chain) % 300)
                parent.append(above)
                logp.append(-0.1 * (chain + 1) - 0.01 * (i + 1))
                above = len(token) - 1
        return TokenTree.build(token, parent, logp)


# the text ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_the_text_is_that_of_plain_decoding(
    rig: Rig, tiny: Callable[..., Path], winners: list[int], sampling: SamplingConfig
) -> None:
    prompt = random_text(1, 40)
    plain = write(rig.engine(), rig, prompt, 2 * N, sampling)
    architecture = rig.model.header.architecture.replace("-", "_")
    for noise in (0.02, 0.1):
        drafter = rig.model_drafter(tiny(architecture, noise=noise))
        assert write(rig.engine(drafter, ROWS), rig, prompt, 2 * N, sampling) == plain
    assert write(rig.engine(NgramDrafter(NgramPredictor()), ROWS), rig, prompt * 3, N, sampling) == write(
        rig.engine(), rig, prompt * 3, N, sampling
    )


def test_trees_of_a_draft_without_states_become_chains(rig: Rig, winners: list[int], drafter: Drafter) -> None:
    prompt = random_text(2, 30)
    assert write(rig.engine(drafter, ROWS), rig, prompt, N) == write(rig.engine(), rig, prompt, N)
    assert winners


@pytest.mark.parametrize("architecture", ["lfm2", "lfm2moe"])
def test_a_session_has_as_many_chains_as_its_plan(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, winners: list[int], architecture: str
) -> None:
    monkeypatch.setattr(states, "_OF_KEPT", 1)  # a tiny model's states are not small beside its weights
    config = SessionConfig(n_ctx=256, n_threads=1, fallback="none", tree=limit_tree(ROWS))
    texts = []
    for mode in ("off", "draft"):
        with Session(tiny(architecture), tiny("llama", seed=3), replace(config, speculative=mode)) as session:
            assert session.plan.verifier_shape.n_seq > 1 and session.plan.kernels.exact
            chunks = session.stream(random_text(1, 40), DRAWN, 2 * N)
            texts.append([token for chunk in chunks for token in chunk.tokens])
    assert texts[0] == texts[1] and winners


@pytest.mark.parametrize("n_right", range(6))
@pytest.mark.parametrize("winner", range(CHAINS))
def test_any_chain_may_be_right_for_any_length(rig: Rig, n_right: int, winner: int) -> None:
    """The one that is becomes text without being evaluated again, and what is written after it is the same."""
    prompt = random_text(3, 20)
    whole = prompt + write(rig.engine(), rig, prompt, N)
    rig.context.clear()
    verifier, ids, scripted = Verifier(rig.context), list(prompt), Scripted(whole)
    while len(ids) + 8 < len(whole):
        tree = scripted.tree(len(ids), n_right, winner)
        text = begin(verifier, ids)
        assert verifier.n_rows(text, tree) == CHAINS * (text.n_uncached + 5)
        tokens = check(verifier, ids, tree, greedy).tokens(tree)
        assert len(tokens) >= n_right + 1
        assert tokens == whole[len(ids) : len(ids) + len(tokens)] and is_trunk(verifier)
        ids += tokens
        assert len(verifier.cache) == len(ids) - 1
        assert all(rig.context.n_held(seq) == 0 for seq in range(1, CHAINS))


def test_control_a_state_that_is_copied_with_wrong_tokens_changes_the_text(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp copies what there was before the last rows were taken back."""
    prompt, share = random_text(3, 20), StateCache.share
    whole = prompt + write(rig.engine(), rig, prompt, N)

    def forgetting(self: StateCache, n_seq: int, n_doubtful: int = 0) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Context, "restore_state", lambda *_: None)
            share(self, n_seq, n_doubtful)

    monkeypatch.setattr(StateCache, "share", forgetting)
    rig.context.clear()
    verifier, ids, scripted = Verifier(rig.context), list(prompt), Scripted(whole)
    for n_right, winner in ((2, 0), (4, 1)) * 3:
        tree = scripted.tree(len(ids), n_right, winner)
        ids += check(verifier, ids, tree, greedy).tokens(tree)
    assert ids != whole[: len(ids)]


# interruptions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_interruptions_change_no_text(rig: Rig, drafter: Drafter, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    prompt = random_text(7, 40)
    whole = write(rig.engine(), rig, prompt, N)
    engine: Engine = rig.engine(drafter, ROWS)
    rng = np.random.default_rng(seed)
    with monkeypatch.context() as patch, pytest.raises((NativeError, Stopped)):
        patch.setattr(api, "llama_decode", Interrupted(engine, int(rng.integers(4, 30)), int(rng.integers(3))))
        write(engine, rig, [*prompt, *whole[: int(rng.integers(N))], *random_text(seed, 3)], N)
    assert is_trunk(engine.verifier)
    assert write(engine, rig, prompt, N) == whole


# memory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_chains", "n_snapshots"), [(1, 0), (1, 16), (4, 16), (8, 16)])
@pytest.mark.parametrize("architecture", ["qwen35", "nemotron_h"])
def test_buffers_for_states_are_planned(
    tiny: Callable[..., Path], architecture: str, n_chains: int, n_snapshots: int
) -> None:
    """As llama.cpp's log has them."""
    path, said = tiny(architecture), list[str]()
    quiet()  # another module may have taken llama.cpp's log
    with closing(Model(path, vocabulary=False)) as model:
        kept = States(n_chains=n_chains, n_snapshots=n_snapshots)
        shape = ContextShape(n_cells=256, n_batch=64, n_outputs=16, n_seq=n_chains, states=kept)
        with listening(said.append), closing(Context(model, shape, 1)):
            planned = shape.buffer_bytes(model.header) - 4 * shape.outputs * model.n_vocab  # of what is no output
    found = [match for line in said if (match := re.search(r"CPU compute buffer size is +([\d.]+) MiB", line))]
    assert abs(float(found[-1][1]) * 2**20 - planned) < 0.03 * planned + (64 << 10)
