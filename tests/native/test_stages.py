"""Drafting on while a pass waits: what is kept, what is dropped, and a text that knows nothing of it."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.draft.base import DraftedTree
from cadcpp.draft.best_first import BestFirstGrowth
from cadcpp.draft.branch_pacer import BranchPacer
from cadcpp.draft.model_drafter import ModelDrafter, StartGrowth
from cadcpp.errors import NativeError
from cadcpp.native.context import Stopped
from cadcpp.policy.base import FixedSize, Policy
from cadcpp.policy.cost_model import CostModel
from cadcpp.policy.llmcad import AdaptiveFallback
from cadcpp.residency.pager import NullPager
from cadcpp.runtime.engine import Engine
from cadcpp.runtime.round import Round
from cadcpp.runtime.session import Session
from cadcpp.runtime.stages import Steps, finish, in_background, run, stage
from cadcpp.tree.limits import DraftBudget
from tests.support.command import ROOT
from tests.support.growing import budget
from tests.support.rig import Rig
from tests.support.vocab import random_text

GREEDY = SamplingConfig(temperature=0.0)
N, ROWS, END = 60, 16, 2


class Waiting(NullPager):
    """As if every pass waited for the disk, from its start to its end."""

    def wait_for_stall(self, seconds: float) -> bool:
        return True


@pytest.fixture(scope="module")
def rig(tiny: Callable[..., Path]) -> Iterator[Rig]:
    path = tiny("llama", type_name="Q8_0", n_layer=8, n_embd=128, n_head=4, n_head_kv=2, n_ff=2048)
    with closing(Rig(path, n_ctx=256, max_rows=32, n_batch=32)) as rig:
        yield rig


@pytest.fixture(scope="module")
def model_drafter(rig: Rig, tiny: Callable[..., Path]) -> ModelDrafter:
    return rig.model_drafter(tiny("llama", noise=0.02, n_layer=8, n_embd=128, n_head=4, n_head_kv=2, n_ff=2048))


@pytest.fixture(scope="module")
def other_drafter(rig: Rig, model_drafter: ModelDrafter) -> ModelDrafter:
    return rig.model_drafter(model_drafter.context.model.path)


class Watched(ModelDrafter):
    """Remembers what was kept."""

    def __init__(self, drafter: ModelDrafter, start_growth: StartGrowth = BestFirstGrowth) -> None:
        super().__init__(drafter.context, [END], start_growth=start_growth)
        drafter.context.clear()
        self.kept: list[int] = []

    def grow(self, ids: Sequence[int], budget: DraftBudget) -> DraftedTree:
        drafted = super().grow(ids, budget)
        self.kept.append(drafted.n_kept)
        return drafted


def engine(rig: Rig, drafter: ModelDrafter, policy: Policy | None = None) -> Engine:
    made = rig.engine(drafter, ROWS)
    made.pager, made.ahead, made.policy = Waiting(), True, policy or FixedSize()
    return made


def write(engine: Engine, rig: Rig, prompt: list[int], n: int, sampling: SamplingConfig = GREEDY) -> list[int]:
    with closing(rig.sampler(prompt, sampling)) as sampler:
        return [token for result in engine.rounds(prompt, sampler, n) for token in result.tokens]


@pytest.mark.parametrize("policy", [None, CostModel, AdaptiveFallback])
@pytest.mark.parametrize("seed", range(3))
def test_the_text_is_the_same(
    rig: Rig, model_drafter: ModelDrafter, seed: int, policy: Callable[[], Policy] | None
) -> None:
    prompt, sampling = random_text(seed, 40), SamplingConfig(seed=seed) if seed else GREEDY
    whole = write(rig.engine(), rig, prompt, N, sampling)
    drafter = Watched(model_drafter, BranchPacer if policy is AdaptiveFallback else BestFirstGrowth)
    assert write(engine(rig, drafter, policy and policy()), rig, prompt, N, sampling) == whole


def test_what_agrees_is_kept(rig: Rig, model_drafter: ModelDrafter) -> None:
    drafters = Watched(model_drafter), Watched(model_drafter)
    for drafter, ahead in zip(drafters, (True, False), strict=True):
        drafter.context.clear()
        for seed in range(4):
            made = engine(rig, drafter)
            made.ahead = ahead
            write(made, rig, random_text(seed, 40), N)
    assert sum(drafters[0].kept) > sum(drafters[1].kept)
    assert drafters[0].n_decodes > drafters[1].n_decodes


def test_a_kept_tree_is_the_one_that_would_be_grown_anew(
    rig: Rig, model_drafter: ModelDrafter, other_drafter: ModelDrafter
) -> None:
    """Its cells are where they belong: the draft says the same after them. Up to rounding, which batches change."""
    drafter, limits, n_checked = Watched(model_drafter), budget(ROWS, 8), 0
    for seed in range(4):
        ids = random_text(seed, 40)
        whole = ids + write(rig.engine(), rig, ids, N)
        for at in range(len(ids), len(whole) - 8, 2 + seed % 3):
            tree = drafter.grow(whole[:at], limits).tree
            drafter.ahead(lambda: True, 24)
            if drafter.kept[-1] > 1:
                fresh = Watched(other_drafter).grow(whole[:at], limits).tree
                likely = [np.sort(t.logp)[::-1][:6] for t in (tree, fresh)]
                np.testing.assert_allclose(likely[0], likely[1], atol=0.1)
                n_checked += 1
    assert n_checked > 20


def test_it_ends_with_the_context(rig: Rig, model_drafter: ModelDrafter) -> None:
    """Drafting ahead never wants more cells than there are."""
    prompt = random_text(5, 200)
    whole = write(rig.engine(), rig, prompt, 100)
    assert write(engine(rig, Watched(model_drafter)), rig, prompt, 100) == whole


@pytest.mark.parametrize("seed", range(6))
def test_closing_at_any_point_leaves_both_caches_right(rig: Rig, model_drafter: ModelDrafter, seed: int) -> None:
    """The reader goes away after some steps, in mid-pass as well; the same engine goes on with the same text."""
    rng, prompt = np.random.default_rng(seed), random_text(seed, 40)
    whole = write(rig.engine(), rig, prompt, N)
    made = engine(rig, Watched(model_drafter))
    for _ in range(4):
        with closing(rig.sampler(prompt, GREEDY)) as sampler:
            steps = made.steps(prompt, sampler, N, accounting=made.accounting())
            for _ in zip(range(int(rng.integers(1, 12))), steps, strict=False):
                time.sleep(rng.uniform(0, 0.004))
            steps.close()
    assert write(made, rig, prompt, N) == whole


def test_a_pass_in_memory_ends_at_once(rig: Rig) -> None:
    """Closing does not wait for the pass to end by itself, and the next one is right."""
    made, prompt = rig.engine(), random_text(1, 200)
    whole = write(rig.engine(), rig, prompt, 5)
    with closing(rig.sampler(prompt, GREEDY)) as sampler:
        made.verifier.context.stop()
        with pytest.raises(Stopped):
            list(made.rounds(prompt, sampler, 5))
    assert write(made, rig, prompt, 5) == whole


# the workers ------------------------------------------------------------------------------------------


def test_stages_run_on_one_thread_and_results_come_in_order() -> None:
    def steps() -> Steps[int]:
        for i in range(3):
            name = yield from stage(lambda: None, lambda: threading.current_thread().name)
            assert name.startswith("cadcpp-compute")
            yield i

    assert list(run(steps())) == [0, 1, 2]


def test_an_error_of_a_stage_reaches_the_caller() -> None:
    def steps() -> Steps[Round]:
        yield from stage(lambda: None, lambda: 1 // 0)

    with pytest.raises(ZeroDivisionError):
        list(run(steps()))


def test_closing_stops_the_stage_and_waits_for_it() -> None:
    stop, ended = threading.Event(), list[bool]()

    def work() -> None:
        stop.wait(10)
        ended.append(True)

    def steps() -> Steps[int]:
        yield from stage(stop.set, work)

    made = steps()
    assert isinstance(next(made), Future)
    made.close()
    assert stop.is_set() and ended == [True]


def test_work_that_leaves_all_valid_runs_to_its_end_whatever_a_signal_raises() -> None:
    go_on, ended = threading.Event(), list[bool]()

    def work() -> None:
        go_on.wait(10)
        ended.append(True)

    class Interrupting(Exception):
        """What a signal's handler raises."""

    def raise_in_time(_number: int, _frame: object) -> None:
        go_on.set()
        raise Interrupting

    before = signal.signal(signal.SIGALRM, raise_in_time)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(Interrupting):
            finish(work)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ended == [True]


def test_a_signal_at_any_line_of_a_reply_frees_nothing_that_is_in_use(tiny: Callable[..., Path]) -> None:
    command = [sys.executable, "-m", "tests.support.sweep", str(tiny("llama"))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    n_lines, *faults = done.stdout.split(maxsplit=1)
    assert done.returncode == 0 and int(n_lines) > 100 and not faults, done.stderr


def test_a_stream_may_outlive_its_session(tiny: Callable[..., Path]) -> None:
    with Session(tiny("llama"), None, SessionConfig(n_ctx=64)) as session:
        read, left = (session.stream([1, 2, 3], GREEDY, 20) for _ in range(2))
        next(left)
        next(read)
    with pytest.raises(NativeError, match="is closed"):
        next(read)
    left.close()


def test_beside_ends_with_the_block() -> None:
    seen: list[bool] = []

    def work(over: Callable[[], bool]) -> None:
        while not over():
            time.sleep(0.001)
        seen.append(over())

    with in_background(work):
        assert not seen
    assert seen == [True]


def test_what_goes_wrong_beside_is_told() -> None:
    def work(over: Callable[[], bool]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), in_background(work):
        pass
