"""The draft's temperature against drafts whose true one is known."""

import pytest

from cadcpp.policy.draft_temperature import DraftTemperature


@pytest.mark.parametrize("right", [0.5, 0.7, 1.0, 1.3])
def test_it_is_found(right: float) -> None:
    """Of a tree that promises 4 tokens, (temperature / right)^1.4 times as many are accepted, as measured."""
    draft_temperature = DraftTemperature()
    for _ in range(200):
        draft_temperature.observe(round(40 * (draft_temperature.temperature / right) ** 1.4), 40.0)
    assert draft_temperature.temperature == pytest.approx(right, rel=0.05)


@pytest.mark.parametrize(("accepted", "expected", "end"), [(0, 9.0, 1.5), (9, 0.0, 0.2)])
def test_it_stays_within_bounds(accepted: int, expected: float, end: float) -> None:
    draft_temperature = DraftTemperature()
    for _ in range(200):
        draft_temperature.observe(accepted, expected)
    assert draft_temperature.temperature == end
