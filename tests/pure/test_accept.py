"""The accept walk, with a scripted target."""

import pytest

from cadcpp.tree.token_tree import TokenTree
from cadcpp.verify.accept import accept

#            row 0 (10)
#            /        \
#      row 1 (20)    row 4 (21)
#      /      \          \
#  row 2 (30) row 3 (31)  row 5 (30)
TREE = TokenTree.build([10, 20, 30, 31, 21, 30], [-1, 0, 1, 1, 0, 4], [0.0, -0.1, -0.2, -1.0, -2.0, -3.0])


@pytest.mark.parametrize(
    ("script", "rows", "tokens"),
    [
        pytest.param([99], [0], [99], id="nothing"),
        pytest.param([30], [0], [30], id="a token that stands deeper only"),
        pytest.param([20, 99], [0, 1], [20, 99], id="one"),
        pytest.param([20, 30, 7], [0, 1, 2], [20, 30, 7], id="the whole chain"),
        pytest.param([20, 31, 7], [0, 1, 3], [20, 31, 7], id="second child"),
        pytest.param([21, 30, 7], [0, 4, 5], [21, 30, 7], id="side branch"),
        pytest.param([21, 31], [0, 4], [21, 31], id="a cousin is no child"),
        pytest.param([20, 30, 10], [0, 1, 2], [20, 30, 10], id="bonus equal to the root"),
    ],
)
def test_walk(script: list[int], rows: list[int], tokens: list[int]) -> None:
    drawn: list[int] = []

    def choose(row: int) -> int:
        drawn.append(row)
        return script[len(drawn) - 1]

    accepted = accept(TREE, choose)
    assert (accepted.rows, accepted.tokens(TREE)) == (rows, tokens)
    # One draw per emitted token, at the accepted rows in order: a seeded sampler stays in step with plain decoding.
    assert drawn == rows
    assert len(drawn) == len(tokens)


def test_plain_decoding_is_the_walk_over_a_root() -> None:
    accepted = accept(TokenTree.root(5), lambda row: 9)
    assert (accepted.rows, accepted.bonus) == ([0], 9)
