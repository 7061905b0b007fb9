"""The cost model against a device whose true costs are known."""

import pytest

from cadcpp.config import TreeConfig
from cadcpp.planner import CostModel, Observation


def run(
    n_rounds: int,
    *,
    base_s: float = 0.06,
    row_s: float = 0.011,
    node_s: float = 0.006,
    stream_s: float = 0.0,
    ahead_s: float = 0.0,
    accepted: float = 0.7,
) -> tuple[CostModel, list[int]]:
    """Rounds on a simulated device; a tree of n rows has n * 0.3 expected tokens, up to 5. Returns the rows."""
    model, sizes = CostModel(), []
    for _ in range(n_rounds):
        if model.pays():
            limits = model.limits(TreeConfig(rows=64), 1)
            rows = max(2, min(limits.rows, max(limits.free_rows, int(8 * (1 - min(limits.row_price, 1))))))
        else:
            rows = 1
        expected = min(0.3 * (rows - 1), 5.0)
        model.observe(
            Observation(
                n_rows=rows,
                n_evaluated=0 if rows == 1 else (rows + 1) // 2,
                n_tokens=1 + round(expected * accepted),
                expected=expected,
                draft_s=node_s * rows / 2,
                compute_s=base_s + row_s * rows,
                stream_s=stream_s,
                ahead_s=ahead_s,
            )
        )
        sizes.append(rows)
    return model, sizes


def test_measured_costs_are_found_again() -> None:
    base_s, row_s = run(30)[0].verify.fit()
    assert base_s + 16 * row_s == pytest.approx(0.06 + 16 * 0.011, rel=0.1)


def test_rows_are_free_while_the_disk_is_slower() -> None:
    assert run(20, stream_s=5.0)[0].limits(TreeConfig(rows=64), 1).free_rows >= 64
    assert run(20, stream_s=0.0)[0].limits(TreeConfig(rows=64), 1).free_rows < 8


def test_drafting_is_free_while_the_disk_reads_ahead() -> None:
    assert run(20, ahead_s=0.6)[0].limits(TreeConfig(), 1).free_nodes == pytest.approx(100, rel=0.2)


def test_a_useless_draft_is_given_up_and_probed() -> None:
    _, sizes = run(200, accepted=0.0)
    drafting = [size for size in sizes[20:] if size > 1]
    assert 0 < len(drafting) < 0.15 * len(sizes)


def test_a_good_draft_is_not_given_up() -> None:
    _, sizes = run(200, stream_s=5.0, accepted=1.0)
    assert min(sizes) > 1


def test_prices_rise_with_the_rate_that_could_be_had() -> None:
    slow, fast = (run(30, stream_s=stream)[0].limits(TreeConfig(), 1) for stream in (5.0, 0.0))
    assert slow.row_price < fast.row_price


def test_a_long_prompt_is_not_held_against_the_draft() -> None:
    """The first pass takes long because of its tail, with a draft or without."""
    model = CostModel()
    costs = {"expected": 5.0, "draft_s": 0.05, "n_tokens": 6, "n_evaluated": 10}
    model.observe(Observation(n_rows=500, n_tail=485, compute_s=0.06 + 0.011 * 500, **costs))
    for _ in range(8):
        assert model.pays()
        model.observe(Observation(n_rows=16, compute_s=0.06 + 0.011 * 16, **costs))


def test_rows_of_the_tail_leave_fewer_free_ones() -> None:
    model, _ = run(20, stream_s=0.5)
    assert model.limits(TreeConfig(), 9).free_rows == model.limits(TreeConfig(), 1).free_rows - 8
