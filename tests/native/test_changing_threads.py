"""A text is the same whatever number of threads computes each of its rounds."""

from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.gguf.header import read_header
from cadcpp.gguf.sketch import sketch
from cadcpp.modes import Speculative
from cadcpp.native import exactness
from cadcpp.native.context import Context
from cadcpp.policy.pass_cost import PassCost
from cadcpp.residency.kernel_mode import KernelMode
from cadcpp.runtime import assembly
from cadcpp.runtime.kernel_choice import kernel_modes, same_with_all
from cadcpp.runtime.session import Session
from cadcpp.system.cpu import Threads
from cadcpp.tree.limits import TreeLimits
from tests.support.vocab import random_text

COUNTS = (1, 2)
DRAWN = SamplingConfig(temperature=0.8, seed=7)


class ChangingLoad:
    """Others keep one of two CPUs busy, or none, and each round sees another number."""

    n_cpus, seconds = 2, 1.0

    def __init__(self) -> None:
        self._busy: Iterator[float] = cycle((1.0, 0.0, 0.0))

    def busy(self) -> float:
        return next(self._busy)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "most_threads", lambda: Threads(2, "as the test says"))


def write(path: Path, draft: Path, mode: Speculative, *, changing: bool) -> tuple[list[int], set[int]]:
    """A text, and with what numbers of threads it was computed."""
    config = SessionConfig(
        n_ctx=256,
        n_threads=2,
        threads_because="as the test says" if changing else "",
        fallback="none",
        speculative=mode,
        tree=TreeLimits(max_size=12),
    )
    with Session(path, draft, config) as session:
        threads, counts, text = session.engine.threads, set[int](), list[int]()
        assert tuple(threads.counts) == (COUNTS if changing else ())
        threads.load = ChangingLoad()  # type: ignore[assignment]
        for chunk in session.stream(random_text(7, 24), DRAWN, 48):
            text += chunk.tokens
            assert {context.n_threads for context in threads.contexts} == {threads.n}
            counts.add(threads.n)
        return text, counts


@pytest.fixture(scope="module", params=["Q8_0", "Q4_0", "Q4_K"])
def pair(tiny: Callable[..., Path], request: pytest.FixtureRequest) -> tuple[Path, Path]:
    sizes = {"n_embd": 256, "n_ff": 512, "n_head": 4, "n_head_kv": 2}
    return tiny("llama", type_name=request.param, **sizes), tiny("llama", type_name=request.param, **sizes, noise=0.02)


@pytest.fixture(scope="module")
def expected(pair: tuple[Path, Path]) -> list[int]:
    text, counts = write(*pair, "off", changing=False)
    assert counts == {2}
    return text


@pytest.mark.parametrize("mode", ["off", "draft", "auto"])
def test_the_text_does_not_see_threads_change(
    pair: tuple[Path, Path], expected: list[int], two_cores: None, mode: Speculative
) -> None:
    text, counts = write(*pair, mode, changing=True)
    assert counts == {1, 2}
    assert text == expected


def test_threads_that_were_asked_for_stay(tiny: Callable[..., Path], two_cores: None) -> None:
    with Session(tiny("llama"), config=SessionConfig(n_ctx=64, n_threads=2)) as session:
        session.engine.threads.load = ChangingLoad()  # type: ignore[assignment]
        assert [chunk for chunk in session.stream(random_text(7, 8), DRAWN, 8)]
        assert session.engine.threads.n == 2 and not session.engine.threads.changed


def test_threads_change_only_where_that_is_known_to_be_exact(tiny: Callable[..., Path]) -> None:
    header = read_header(tiny("llama", type_name="Q8_0", n_embd=256, n_ff=512, n_head=4, n_head_kv=2))
    mode = kernel_modes(SessionConfig(n_threads=2), header).streamed
    assert same_with_all(header, mode, COUNTS)
    assert not same_with_all(header, KernelMode(exact=False, reason="nobody knows"), COUNTS)
    assert not same_with_all(header, KernelMode(untried="operations on states"), COUNTS)


def test_control_rounding_that_depends_on_threads_is_seen(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sketch(read_header(tiny("llama", type_name="Q8_0", n_embd=256, n_ff=512, n_head=4, n_head_kv=2)))
    assert exactness.agrees_with_threads(made, KernelMode(), counts=COUNTS)
    logits = Context.logits

    def rounded_by_threads(context: Context, n: int) -> NDArray[np.float32]:
        return np.nextafter(logits(context, n), np.float32(context.n_threads - 1))

    monkeypatch.setattr(Context, "logits", rounded_by_threads)
    assert not exactness.agrees_with_threads(made, KernelMode(), counts=COUNTS)


def test_what_passes_took_with_other_threads_counts_for_little() -> None:
    cost = PassCost()
    for _ in range(40):
        cost.add(1, 0.1)
        cost.add(8, 0.2)
    cost.doubt()
    assert cost.estimate()[8] == pytest.approx(0.2, rel=0.05), "it is all that is known"
    for _ in range(3):
        cost.add(8, 0.4)
    assert cost.estimate()[8] == pytest.approx(0.4, rel=0.2)
