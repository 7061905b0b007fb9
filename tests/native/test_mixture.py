"""A mixture of experts in less memory than it has: the text of plain decoding, and no reads but the routed ones."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cadcpp.config import SamplingConfig
from cadcpp.native.context import Context
from cadcpp.native.model import Model
from cadcpp.residency.context_shape import ContextShape
from cadcpp.residency.states import States
from cadcpp.residency.streaming_pager import StreamingPager
from cadcpp.runtime.session import Session
from cadcpp.system.memory_limits import read_bytes
from cadcpp.telemetry.stats import Stats
from cadcpp.tree.granularity import Granularity
from tests.support.mixtures import FEW_DENSE, GREEDY, N_CTX, PROMPT, session, write
from tests.support.routes import Routes
from tests.support.vocab import random_text

SHAPES: dict[str, dict[str, Any]] = {
    "mixture": {"n_layer": 4, "n_embd": 256, "n_ff": 512, "n_experts": 16, "n_used": 2},
    "gpt_oss": {"n_layer": 4, "n_embd": 256, "n_ff": 256, "n_experts": 32, "n_used": 4, "window": 32},
}
# Whose dense weights are so large that buffers for 512 rows find room among them, as those of real mixtures are.
DENSE: dict[str, Any] = {"n_layer": 16, "n_embd": 512, "n_ff": 32, "n_experts": 16, "type_name": "F32"}
DRAWN = SamplingConfig(temperature=0.8, seed=7)
TIED = {**SHAPES["mixture"], "n_used": 3, "tied": True}  # whose third expert is one of an even pair, always


@pytest.fixture(scope="module")
def mixture(tiny: Callable[..., Path]) -> Path:
    return tiny("mixture", **SHAPES["mixture"])


@pytest.fixture(scope="module")
def plain(mixture: Path) -> Iterator[list[int]]:
    with session(mixture, None, 2.0) as running:
        assert not running.plan.streams
        yield write(running, 48)


@pytest.mark.usefixtures("drafting")
@pytest.mark.parametrize(
    ("architecture", "shape"),
    [("gpt_oss", SHAPES["gpt_oss"]), ("mixture", TIED)],
    ids=["gpt-oss", "routing ties"],
)
@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_drafts_and_limits_change_no_token(
    tiny: Callable[..., Path], architecture: str, shape: dict[str, Any], sampling: SamplingConfig
) -> None:
    """Beyond a sliding window, where there is one."""
    path, draft = tiny(architecture, **shape), tiny(architecture, **shape, noise=0.02)
    with session(path, None, 2.0, speculative="off") as running:
        assert not running.plan.streams
        plain = write(running, 64, sampling=sampling)
    for share in (2.0, 0.5):
        stats = Stats()
        with session(path, draft, share, fallback="none") as running:
            assert running.plan.streams == (share < 1)
            assert write(running, 64, sampling=sampling, stats=stats) == plain
        assert stats.accepted > 0 and stats.exact
        assert (stats.expert_read_bytes > 0) == (share < 1)


def test_control_a_sliding_window_of_another_size_writes_another_text(tiny: Callable[..., Path]) -> None:
    texts = []
    for window in (32, 64):
        with session(tiny("gpt_oss", **SHAPES["gpt_oss"] | {"window": window}), None, 2.0) as running:
            texts.append(write(running, 64))
    assert texts[0] != texts[1]


@pytest.mark.parametrize("share", [0.3, 0.6])
@pytest.mark.parametrize("drafted", [False, True])
def test_the_text_is_the_same(mixture: Path, plain: list[int], share: float, drafted: bool) -> None:
    how = "staged" if drafted else "auto"  # drafted as well where so few experts are in memory
    with session(mixture, mixture if drafted else None, share, speculative=how) as behind:
        assert behind.plan.streams and behind.plan.layout.streamed == ()
        assert write(behind, 48) == plain
        assert behind.pager.state().expert_bytes > 0


def test_only_routed_experts_are_read(mixture: Path) -> None:
    """By the pager's account and by the kernel's, a token at a time."""
    with session(mixture, None, 0.5) as behind:
        write(behind, 24)
        _forget(mixture, behind)
        before, counted = behind.pager.state(), read_bytes()
        write(behind, 24, PROMPT[:4])
        after, counted = behind.pager.state(), read_bytes() - counted
    n_passes, read = after.passes - before.passes, after.expert_bytes - before.expert_bytes
    layout = behind.plan.layout
    assert 0 < read <= n_passes * behind.plan.routed * 2  # the prompt's pass routes a few rows at once
    assert read < n_passes * layout.expert_bytes / 4
    if counted:  # a memory file system has nothing to count
        assert counted <= 1.25 * read + (4 << 20)


def test_a_long_prompt_reads_each_expert_once_a_pass(tiny: Callable[..., Path]) -> None:
    """It takes two at most, in which no byte of an expert is read twice, by the kernel's account too."""
    path, prompt = tiny("mixture", **DENSE), random_text(5, 500)
    with session(path, None, 0.4, n_ctx=1024) as behind:
        write(behind, 1, PROMPT[:2])  # what stays in memory is read
        _forget(path, behind)
        before, counted = behind.pager.state(), read_bytes()
        write(behind, 1, prompt)
        after, counted = behind.pager.state(), read_bytes() - counted
        once = behind.plan.layout.expert_bytes + behind.plan.routed
    assert after.passes - before.passes <= 2
    used = (DENSE["n_layer"] - 1) * DENSE["n_experts"]  # of the last layer only where logits are asked for
    assert after.experts_used - before.experts_used >= used
    n_passes = after.passes - before.passes
    assert 0.4 * once < after.expert_bytes - before.expert_bytes < n_passes * once
    if counted:
        assert counted <= 1.1 * n_passes * once + (4 << 20)


def test_experts_make_room_for_a_long_prompt(tiny: Callable[..., Path]) -> None:
    """Where the dense weights are too few for that, as in mixtures of many experts; the text stays the same."""
    path, prompt = tiny("mixture", **FEW_DENSE), random_text(5, 500)
    with session(path, None, 2.0, n_ctx=1024) as whole:
        plain = write(whole, 12, prompt)
    with session(path, None, 0.5, n_ctx=1024) as behind:
        header = behind.engine.verifier.context.model.header
        assert behind.plan.wide_shape(header, 512, 1024, 8) is not None
        assert replace(behind.plan, experts=0).wide_shape(header, 512, 1024, 8) is None
        before = behind.pager.state()
        assert write(behind, 12, prompt) == plain
        once = behind.plan.layout.expert_bytes
        assert behind.pager.state().passes - before.passes == 12
        assert behind.pager.state().expert_bytes - before.expert_bytes < 1.5 * once


@pytest.mark.parametrize("n_rows", [1, 3, 5])
@pytest.mark.parametrize("architecture", SHAPES)
def test_rows_that_fill_a_pass_up_read_no_experts(tiny: Callable[..., Path], architecture: str, n_rows: int) -> None:
    """They are routed as the first row is, in every layer, wherever in a text it stands."""
    mixture, n_used = tiny(architecture, **SHAPES[architecture]), SHAPES[architecture]["n_used"]
    shape = ContextShape(n_cells=N_CTX, n_batch=16, n_outputs=16, n_seq=8)
    text = random_text(3, 40)
    used = []
    for granularity in (Granularity(), Granularity(4, 4)):
        routes = Routes()
        with closing(Model(mixture)) as model:
            with closing(Context(model, replace(shape, granularity=granularity), 1, routes)) as context:
                for start, n in ((0, 16), (16, 16), (32, n_rows)):
                    context.batch.clear()
                    context.batch.add(text[start : start + n], start, 0, 1, True)
                    context.decode()
        assert {len(chosen) for chosen in routes.chosen.values()} <= {granularity.whole(n_rows), n_rows}
        assert set(routes.n_own.values()) == {n_rows}
        used.append({layer: set(chosen.ravel().tolist()) for layer, chosen in routes.chosen.items()})
    assert used[0] == used[1] and all(len(experts) <= n_used * n_rows for experts in used[1].values())


@pytest.mark.parametrize("architecture", SHAPES)
def test_the_experts_of_each_row_are_told_beside_its_token(tiny: Callable[..., Path], architecture: str) -> None:
    """In the order of the batch, whatever its sequences are, and without rows that fill the pass up."""
    tokens = [11, 3, 29, 17, 5]
    shape = ContextShape(n_cells=N_CTX, n_batch=16, n_outputs=16, n_seq=8, granularity=Granularity(4, 4))

    def routed(*rows: int) -> Routes:
        """Of branches of one token each, at the beginning of a text."""
        routes = Routes()
        with closing(Model(path)) as model, closing(Context(model, shape, 1, routes)) as context:
            seqs = np.arange(len(rows), dtype=np.int32)
            context.batch.add(list(rows), np.zeros(len(rows), np.int32), seqs, seqs + 1, True)
            context.decode()
        return routes

    path = tiny(architecture, **SHAPES[architecture])
    together, alone = routed(*tokens), [routed(token) for token in tokens]
    assert together.tokens == tokens
    for layer, chosen in together.chosen.items():
        for i, one in enumerate(alone):
            assert set(chosen[i].tolist()) == set(one.chosen[layer][0].tolist())


@pytest.mark.parametrize("architecture", ["lfm2moe", "qwen35moe"])
@pytest.mark.parametrize("n_seq", [1, 2, 3])
def test_rows_of_several_sequences_with_states_have_no_tokens_told(
    tiny: Callable[..., Path], architecture: str, n_seq: int
) -> None:
    """llama.cpp puts these into an order of its own."""
    shape = ContextShape(n_cells=N_CTX, n_batch=64, n_outputs=16, n_seq=4, granularity=Granularity(4, 4))
    routes, text = Routes(), random_text(3, 5)
    with closing(Model(tiny(architecture))) as model:
        with closing(Context(model, replace(shape, states=States()), 1, routes)) as context:
            for seq in range(n_seq):
                context.batch.add(text, 0, seq, seq + 1, True)
            context.decode()
    assert routes.tokens == (text if n_seq == 1 else [])


def test_what_tokens_used_foretells_what_they_read(mixture: Path) -> None:
    """In a session that streams; what is not in memory is dear, what is costs nothing."""
    with session(mixture, None, 0.5, speculative="off") as behind:
        text = write(behind, 48)
        row_reads = behind.pager.state().row_reads(np.array([*text, 1]))
    assert np.ptp(row_reads) > 0.1 and (row_reads >= 0).all()


def test_the_next_session_starts_from_what_was_used_most(mixture: Path, state: Path) -> None:
    with session(mixture, None, 0.5) as behind:
        pager = behind.pager
        assert isinstance(pager, StreamingPager) and behind.plan.hit_rate is None
        first = write(behind, 48)
        learned = pager.demand.rate.copy()
    assert (state / "cadcpp" / "experts.json").stat().st_size < 2_000
    with session(mixture, None, 0.5) as behind:
        assert isinstance(behind.pager, StreamingPager)
        np.testing.assert_allclose(behind.pager.demand.rate, learned, atol=1 / 255)
        assert behind.plan.hit_rate is not None and 0.5 < behind.plan.hit_rate < 1
        assert write(behind, 48) == first


def test_the_figures_tell_of_experts(mixture: Path) -> None:
    stats = Stats()
    with session(mixture, None, 0.5) as behind:
        for _ in behind.stream(PROMPT, GREEDY, 24, stats=stats):
            pass
        read = behind.pager.state()
    assert stats.expert_hit_rate == round(1 - read.experts_read / read.experts_used, 4)
    assert stats.expert_read_bytes == read.expert_bytes > 0
    assert 0 < stats.expert_stall_seconds <= stats.stall_seconds


def test_what_the_system_takes_is_noticed_and_read_again(
    mixture: Path, plain: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text does not depend on it."""
    with session(mixture, None, 0.6) as behind:
        pager, mapping = behind.pager, behind.model.mapping
        assert isinstance(pager, StreamingPager) and mapping is not None
        assert write(behind, 12) == plain[:12]
        monkeypatch.setattr("cadcpp.residency.streaming_pager._LOOK_S", 0.0)
        monkeypatch.setattr(mapping, "in_memory", lambda _part, start, _stop: start % 2)  # as if all were taken at once
        before = behind.pager.state().expert_bytes
        assert write(behind, 48) == plain
        assert pager.state().expert_bytes - before > 48 * behind.plan.layout.experts[0].expert_bytes


def _forget(path: Path, behind: Session) -> None:
    """Take what nobody has mapped out of the page cache, so that a read is a read."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    assert behind.model.mapping is not None
