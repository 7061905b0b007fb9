"""Whether a missing report is noticed, once, and not mistaken for a pass that was stopped."""

import pytest

from cadcpp.residency.cursor_check import NO_LAYER, NO_ROUTER, CursorCheck


@pytest.mark.parametrize(
    ("paged", "layer", "router", "complaint"),
    [
        (False, True, False, None),
        (False, False, False, NO_LAYER),
        (True, True, True, None),
        (True, True, False, NO_ROUTER),
        (True, False, True, NO_LAYER),
        (True, False, False, NO_LAYER),
    ],
)
def test_the_first_whole_pass_decides(paged: bool, layer: bool, router: bool, complaint: str | None) -> None:
    check = CursorCheck(routers=paged)
    if layer:
        check.layer_done()
    if router:
        check.experts_chosen()
    assert check.reported is None
    assert check.end_pass(whole=True) == complaint
    assert check.reported is (complaint is None)


def test_it_is_said_once() -> None:
    check = CursorCheck(routers=False)
    assert [check.end_pass(whole=True) for _ in range(3)] == [NO_LAYER, None, None]


def test_a_stopped_pass_decides_nothing() -> None:
    check = CursorCheck(routers=False)
    assert check.end_pass(whole=False) is None and check.reported is None
    check.layer_done()
    assert check.end_pass(whole=True) is None and check.reported
