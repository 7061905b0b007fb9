"""Numbers of rows that passes are filled up to, and what that takes of a context."""

import pytest

from cadcpp.policy.pass_cost import PassCost
from cadcpp.residency.context_shape import MAX_SEQ, ContextShape, verifier_shape
from cadcpp.residency.kernel_mode import KernelMode
from cadcpp.tree.granularity import Granularity

CASES = {
    Granularity(): [1, 2, 3, 4, 5, 6, 7, 8, 9],
    Granularity(2): [2, 2, 3, 4, 5, 6, 7, 8, 9],
    Granularity(2, 2): [2, 2, 4, 4, 6, 6, 8, 8, 10],
    Granularity(4, 4): [4, 4, 4, 4, 8, 8, 8, 8, 12],
    Granularity(2, 2, 16): [2, 2, 4, 4, 6, 6, 8, 8, 10],
}


@pytest.mark.parametrize(("granularity", "rows"), CASES.items())
def test_rows_are_filled_up(granularity: Granularity, rows: list[int]) -> None:
    assert [granularity.whole(n) for n in range(1, 10)] == rows
    assert granularity.steps(10).tolist() == [0, *rows]
    assert granularity.padding == max(granularity.whole(n) - n for n in range(1, 300))


def test_large_passes_may_have_another_multiple() -> None:
    rows = Granularity(2, 2, 16)
    assert [rows.whole(n) for n in (15, 16, 17, 32, 33, 300)] == [16, 16, 32, 32, 48, 304]


def test_a_coarser_number_suits_a_finer_one() -> None:
    assert Granularity(4, 4).suits(Granularity(2, 2)) and Granularity(4, 4).suits(Granularity(4))
    assert not Granularity(2).suits(Granularity(2, 2)) and not Granularity(4, 4).suits(Granularity(2, 2, 16))
    assert all(Granularity(16, 16, 16).suits(other) for other in CASES)


@pytest.mark.parametrize("granularity", CASES)
def test_a_context_has_room_for_what_fills_its_passes_up(granularity: Granularity) -> None:
    shape = verifier_shape(1024, 64, kernels=KernelMode(granularity=granularity))
    assert shape.cells >= shape.n_cells + granularity.padding and shape.sequences == shape.n_seq + granularity.padding
    assert shape.rows >= shape.n_batch and shape.rows % granularity.multiple == 0
    assert shape.outputs >= granularity.whole(shape.n_outputs)
    assert verifier_shape(1024, 256, kernels=KernelMode(granularity=granularity)).sequences <= MAX_SEQ


def test_without_filling_up_a_context_is_as_it_was() -> None:
    shape = ContextShape(n_cells=1024, n_batch=64, n_outputs=16, n_seq=16)
    assert (shape.sequences, shape.rows, shape.outputs, shape.cells) == (16, 64, 16, 1024)


def test_a_pass_costs_what_its_filled_up_rows_do() -> None:
    cost = PassCost(granularity=Granularity(4, 4))
    for n in (1, 2, 3, 4):
        cost.add(n, 0.4)
    cost.add(7, 0.8)
    seconds = cost.estimate()
    assert seconds[1] == seconds[4] < seconds[5] == seconds[8] and cost.seen_plain > 3
