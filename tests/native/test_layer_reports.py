"""What a context tells while it decodes, and what happens when the one who listens raises."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cadcpp.native.context import Context
from cadcpp.native.model import Model
from cadcpp.residency.context_shape import ContextShape
from cadcpp.residency.states import States

SHAPE = ContextShape(n_cells=256, n_batch=16, n_outputs=16, n_seq=1)


class Diary:
    """Writes down what it is told; raises ``error`` after layer 0 if there is one."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.error: BaseException | None = None

    def start_pass(self, tokens: NDArray[np.int32]) -> None:
        self.told.append("start")

    def experts_chosen(self, layer: int, chosen: NDArray[np.int32], n_own: int) -> None: ...

    def layer_done(self, layer: int) -> None:
        self.told.append(layer)
        if self.error is not None:
            raise self.error

    def end_pass(self, whole: bool) -> None:
        self.told.append("end" if whole else "cut")


def logits(context: Context) -> NDArray[np.float32]:
    context.clear()
    context.batch.clear()
    context.batch.add(list(range(10, 18)), 0, 0, 1, True)
    context.decode()
    return context.logits(8).copy()


def test_every_layer_is_reported_once_and_nothing_changes(tiny: Callable[..., Path]) -> None:
    diary = Diary()
    with closing(Model(tiny("llama", n_layer=3))) as model, closing(Context(model, SHAPE, 1)) as plain:
        with closing(Context(model, SHAPE, 1, diary)) as watched:
            np.testing.assert_array_equal(logits(watched), logits(plain))
    assert diary.told == ["start", 0, 1, 2, "end"]


@pytest.mark.parametrize(
    "architecture",
    "lfm2 lfm2moe qwen35 qwen35moe granitehybrid nemotron_h falcon_h1 mamba2 mamba".split(),
)
def test_layers_of_models_with_a_state_are_reported_in_order(tiny: Callable[..., Path], architecture: str) -> None:
    diary = Diary()
    shape = replace(SHAPE, states=States())
    with closing(Model(tiny(architecture))) as model, closing(Context(model, shape, 1)) as plain:
        with closing(Context(model, shape, 1, diary)) as watched:
            np.testing.assert_array_equal(logits(watched), logits(plain))
        assert diary.told == ["start", *range(model.n_layer), "end"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no")], ids=["ctrl-c", "bug"])
def test_an_error_ends_the_pass_and_the_next_one_is_right(
    tiny: Callable[..., Path], error: BaseException, capfd: pytest.CaptureFixture[str]
) -> None:
    diary = Diary()
    with closing(Model(tiny("llama", n_layer=3))) as model, closing(Context(model, SHAPE, 1, diary)) as watched:
        before = logits(watched)
        diary.told, diary.error = [], error
        with pytest.raises(type(error)):
            logits(watched)
        assert diary.told == ["start", 0, "cut"]  # stopped within one layer
        diary.error = None
        np.testing.assert_array_equal(logits(watched), before)
    assert capfd.readouterr().err == ""
