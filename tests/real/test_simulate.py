"""The simulator beside what was measured on the demo pair."""

from statistics import median

import pytest

from bench.predict.simulate import check, errors
from cadcpp.models.demo import DemoPair

pytestmark = pytest.mark.real


def test_predictions_are_as_far_off_as_they_say(demo: DemoPair) -> None:
    cells = check()
    assert len({cell.place for cell in cells}) >= 6
    assert median(map(abs, errors(cells, "given"))) < 0.1
    assert median(map(abs, errors(cells, "predicted"))) < 0.2
