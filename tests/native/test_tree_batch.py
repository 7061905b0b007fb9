"""A tree in one batch gives every row the logits that it has when its path is decoded token by token."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cadcpp.tree.token_tree import TokenTree
from cadcpp.verify.verifier import Verifier
from tests.support.passes import check
from tests.support.rig import Rig
from tests.support.trees import random_tree
from tests.support.vocab import N_VOCAB


@pytest.fixture(scope="module", params=["Q8_0", "Q4_0", "F16"])
def rig(tiny: Callable[..., Path], request: pytest.FixtureRequest) -> Iterator[Rig]:
    with closing(Rig(tiny("llama", type_name=request.param), n_ctx=256, max_rows=64, n_batch=128)) as rig:
        yield rig


def tree_logits(rig: Rig, text: list[int], tree: TokenTree) -> NDArray[np.float32]:
    rig.context.clear()
    rows: list[NDArray[np.float32]] = []

    def read(*_: object) -> int:
        rows.append(rig.context.logits(len(tree)).copy())
        return -1  # no child, so the walk ends

    check(Verifier(rig.context), text, tree, read)
    return rows[0]


def sequential_logits(rig: Rig, ids: list[int]) -> NDArray[np.float32]:
    rig.context.clear()
    batch = rig.context.batch
    for i, token in enumerate(ids):
        batch.clear()
        batch.add([token], i, 0, 1, True)
        rig.context.decode()
    return np.array(rig.context.logits(1)[0])


@pytest.mark.parametrize("n_text", [1, 30, 100])
@pytest.mark.parametrize("n_rows", [1, 7, 64])
def test_tree_equals_sequential_replay(rig: Rig, n_text: int, n_rows: int) -> None:
    rng = np.random.default_rng(n_text + n_rows)
    text = rng.integers(3, N_VOCAB, n_text).tolist()
    tree = random_tree(rng, n_rows, N_VOCAB, text[-1])
    logits = tree_logits(rig, text, tree)
    for row in rng.permutation(n_rows)[:16]:
        path = [int(tree.token[r]) for r in tree.ancestors(int(row))[1:]]
        # To the last bit: this is what the equality of whole texts rests on.
        np.testing.assert_array_equal(logits[row], sequential_logits(rig, text + path))


def test_siblings_do_not_see_each_other(rig: Rig) -> None:
    alone, crowded = (
        TokenTree.build([9, *ts], [-1, *[0] * len(ts)], [0.0, *[-1.0] * len(ts)]) for ts in ([5], [5, 6, 7])
    )
    np.testing.assert_array_equal(tree_logits(rig, [1, 9], alone)[1], tree_logits(rig, [1, 9], crowded)[1])
