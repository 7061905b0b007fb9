"""KV caches take memory as a text fills them: what contexts hold, and that the text is the same."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.gguf.header import read_header
from cadcpp.native import context as native_context
from cadcpp.native.context import Context
from cadcpp.native.model import Model
from cadcpp.residency.context_shape import ContextShape
from cadcpp.residency.expert_cache import lendable_bytes
from cadcpp.residency.memory_plan import make_plan
from cadcpp.residency.states import verifier_states
from cadcpp.runtime.session import Session
from cadcpp.runtime.token_writer import complete
from cadcpp.system.fresh_memory import Freed
from cadcpp.system.heap import bound_heap, trim_heap
from cadcpp.tree.limits import TreeLimits
from tests.support.mixtures import FEW_DENSE
from tests.support.vocab import random_text

pytestmark = pytest.mark.usefixtures("drafting")

N_CTX, ROWS, N = 2048, 16, 24
SHAPE: dict[str, Any] = {"n_layer": 8, "n_embd": 256, "n_ff": 2048}
GREEDY, DRAWN = SamplingConfig(temperature=0.0), SamplingConfig(temperature=0.8, min_p=0.0, seed=3)
LENGTHS = 100, 700, 1500  # of texts one after the other
MODELS = {"llama": SHAPE, "mixture": FEW_DENSE, "gpt_oss": {**FEW_DENSE, "window": 32}}


def telling(done: bool) -> Callable[[int], AbstractContextManager[Freed]]:
    """In place of what looks for zeros: so small a cache may lie in memory that was used before."""

    @contextmanager
    def zeros_freed(expected: int) -> Iterator[Freed]:
        freed = Freed()
        freed.done = done
        yield freed

    return zeros_freed


def session(path: Path, draft: Path | None, *, limited: bool, **options: Any) -> Session:
    """In memory, or in half of what its weights take."""
    header = read_header(path)
    whole = make_plan(header, read_header(draft) if draft else None, ram=1 << 40, n_ctx=N_CTX, rows=ROWS)
    weights = whole.layout.pinned_bytes + whole.layout.expert_bytes
    ram = whole.fixed + (weights // 2 if limited else 2 * weights)
    config = SessionConfig(n_ctx=N_CTX, n_threads=1, ram=ram, tree=TreeLimits(max_size=ROWS), **options)
    return Session(path, draft, config)


def written(running: Session, n_prompt: int, sampling: SamplingConfig) -> list[int]:
    return [t for chunk in running.stream(random_text(4, n_prompt), sampling, N) for t in chunk.tokens]


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


@pytest.mark.parametrize("architecture", [*MODELS, "lfm2"])
def test_a_context_holds_no_cells_that_no_text_has_reached(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    """Beside one whose zeros are not given back."""
    bound_heap()  # as a session does: else it may lie in what was used and freed before
    with closing(Model(tiny(architecture, **MODELS.get(architecture, {})))) as model:
        states = next(verifier_states(model.header, 1 << 40, snapshots=True, streamed=True))
        shape = ContextShape(n_cells=1 << 17, n_batch=64, n_outputs=8, n_seq=1 if states else 8, states=states)
        n_bytes, taken = shape.cache_bytes(model.header), []
        for found in (True, False):
            if not found:
                monkeypatch.setattr(native_context, "zeros_freed", telling(False))
            trim_heap()
            before = resident()
            with closing(Context(model, shape, 1)) as context:
                assert context.fills == found
                taken.append(resident() - before)
        assert n_bytes > 2 << 20 and taken[1] - taken[0] > 0.9 * n_bytes


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("architecture", MODELS)
def test_the_text_is_the_same_while_weights_make_room(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, architecture: str, sampling: SamplingConfig
) -> None:
    """As where all caches are full from the start, and nothing is drafted."""
    options = MODELS[architecture]
    path, draft = tiny(architecture, **options), tiny(architecture, **options, noise=0.02)
    monkeypatch.setattr(native_context, "zeros_freed", telling(False))
    with session(path, None, limited=True, speculative="off") as running:
        plain = [written(running, n, sampling) for n in LENGTHS]
        assert running.engine.cache_fill.taken == running.plan.unfilled > 0
    monkeypatch.setattr(native_context, "zeros_freed", telling(True))
    with session(path, draft, limited=True, speculative="staged", fallback="none") as running:
        plan, fill = running.plan, running.engine.cache_fill
        assert plan.streams and 0 < plan.unfilled <= plan.cache + plan.draft_cache
        taken = []
        for n, text in zip(LENGTHS, plain, strict=True):
            assert written(running, n, sampling) == text
            taken.append(fill.taken)
        assert taken[0] < taken[1] < taken[2] <= plan.unfilled
        if not plan.layout.experts:
            assert running.pager.state().pinned_bytes <= plan.layout.pinned_bytes - fill.taken


def test_a_text_that_is_only_read_takes_its_cells(tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_context, "zeros_freed", telling(True))
    with session(tiny(**SHAPE), None, limited=True) as running:
        complete(running.engine.read(random_text(2, 1000)))
        assert running.engine.cache_fill.reached == 1024 and running.engine.cache_fill.taken > 0


def test_where_zeros_are_not_found_caches_count_as_full(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_context, "zeros_freed", telling(False))
    with session(tiny(**SHAPE), None, limited=True) as running:
        assert running.engine.cache_fill.taken == running.plan.unfilled > 0
        written(running, 40, GREEDY)
        assert running.pager.state().pinned_bytes <= running.plan.layout.pinned_bytes - running.plan.unfilled


def test_experts_of_a_mixture_can_give_it_back(tiny: Callable[..., Path]) -> None:
    header = read_header(tiny("mixture", **FEW_DENSE))
    whole = make_plan(header, None, ram=1 << 40, n_ctx=N_CTX, rows=ROWS)
    for share in (0.2, 0.5, 0.9):
        ram = whole.fixed + whole.layout.pinned_bytes + int(share * whole.layout.expert_bytes)
        now, full = (make_plan(header, None, ram=ram, n_ctx=N_CTX, rows=ROWS, fills=fills) for fills in (True, False))
        assert now.experts - full.experts == now.unfilled <= lendable_bytes(full.layout.experts, full.experts)
        assert now.layout == full.layout and now.least == full.least and now.streams
    assert now.unfilled > 0
