"""What a long count tells."""

import pytest

from cadcpp.cli.progress import Countdown


def test_the_rate_is_of_this_run_and_tells_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 5.0, 10.0, 19.0, 20.0])
    count = Countdown("sampled", clock=lambda: next(times))
    for done in (1000, 1500, 2000, 2900, 3000):
        count(done, 3000)
    assert capsys.readouterr().err.splitlines() == [
        "sampled 1000 of 3000 tokens",
        "sampled 2000 of 3000 tokens, 100 a second, 0:10 left",
        "sampled 3000 of 3000 tokens, 100 a second, 0:00 left",
    ]
