"""The book-keeping of one KV cache, on a stand-in that keeps cells in dictionaries."""

from typing import Any

import pytest

from cadcpp.errors import ConfigError
from cadcpp.kv.cache import Cache
from cadcpp.residency.context_shape import ContextShape
from cadcpp.util.prefix import common_prefix


class FakeContext:
    """Sequences as position -> token; decode() writes the batch into them. Records what was asked."""

    def __init__(self, n_seq: int = 4, n_batch: int = 4) -> None:
        self.closed = False
        self.shape = ContextShape(n_cells=256, n_batch=n_batch, n_outputs=n_batch, n_seq=n_seq)
        self.seqs: list[dict[int, int]] = [{} for _ in range(n_seq)]
        self.calls: list[tuple[Any, ...]] = []
        self.batch, self._rows = self, list[tuple[int, int, int]]()

    def clear(self) -> None:
        self._rows = []

    def add(self, tokens: list[int], pos: int, lo: int, hi: int, output: bool) -> None:
        self._rows += [(t, pos + i, seq) for i, t in enumerate(tokens) for seq in range(lo, hi)]

    def decode(self, on_layer: object = None) -> None:
        self.calls.append(("decode", len(self._rows)))
        for token, pos, seq in self._rows:
            assert pos not in self.seqs[seq], "a cell written twice"
            self.seqs[seq][pos] = token

    def fork(self, source: int, target: int, start: int, stop: int) -> None:
        self.calls.append(("fork", source, target, start, stop))
        self.seqs[target] |= {p: t for p, t in self.seqs[source].items() if start <= p < stop}

    def trim(self, seq: int, start: int) -> None:
        self.calls.append(("trim", seq, start))
        self.seqs[seq] = {p: t for p, t in self.seqs[seq].items() if p < start}

    def text(self, seq: int) -> list[int]:
        return [self.seqs[seq][p] for p in range(len(self.seqs[seq]))]


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


@pytest.fixture
def cache(context: FakeContext) -> Cache:
    cache = Cache(context)  # type: ignore[arg-type]
    cache.prefill([1, 2, 3, 4, 5, 6], 6)
    return cache


@pytest.mark.parametrize(
    ("a", "b", "n"), [([], [1], 0), ([1, 2], [1, 2], 2), ([1, 2, 3], [1, 2], 2), ([1, 2, 3], [1, 9, 3], 1)]
)
def test_common_prefix(a: list[int], b: list[int], n: int) -> None:
    assert common_prefix(a, b) == n


def test_prefill_takes_as_few_decodes_as_fit(cache: Cache, context: FakeContext) -> None:
    assert context.calls == [("decode", 4), ("decode", 2)]
    assert context.text(0) == cache.tokens == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        pytest.param([1, 2, 3, 4, 5, 6, 7], 6, id="continued"),
        pytest.param([1, 2, 3, 4, 5, 6], 5, id="the same: its last token is evaluated again"),
        pytest.param([1, 2, 9, 4, 5, 6], 2, id="differs in the middle"),
        pytest.param([1, 2, 3], 2, id="shorter"),
        pytest.param([9], 0, id="another text"),
    ],
)
def test_align_keeps_the_common_prefix(cache: Cache, context: FakeContext, ids: list[int], kept: int) -> None:
    cache.share(3)
    cache.align(ids)
    assert [context.text(seq) for seq in range(3)] == [ids[:kept]] * 3
    assert cache.tokens == ids[:kept]


def test_share_copies_only_what_is_new(cache: Cache, context: FakeContext) -> None:
    cache.share(2)
    cache.prefill([1, 2, 3, 4, 5, 6, 7], 7)
    del context.calls[:]
    cache.share(3)
    assert context.calls == [("fork", 0, 1, 6, 7), ("fork", 0, 2, 0, 7)]


def test_share_refuses_more_sequences_than_there_are(cache: Cache) -> None:
    with pytest.raises(ConfigError, match="5 leaves"):
        cache.share(5)


def test_rollback_drops_branches_and_keeps_the_shared_trunk(cache: Cache, context: FakeContext) -> None:
    cache.share(2)
    context.clear()
    context.add([70], 6, 0, 1, True)
    context.add([71, 72], 6, 1, 2, True)
    context.decode()
    cache.branch(1, 2, 7)
    cache.rollback()
    assert [context.text(seq) for seq in range(3)] == [[1, 2, 3, 4, 5, 6]] * 3


def test_adopt_makes_a_branch_the_trunk(cache: Cache, context: FakeContext) -> None:
    cache.share(2)
    context.clear()
    context.add([70], 6, 0, 1, True)
    context.add([71, 72], 6, 1, 2, True)
    context.decode()
    cache.adopt(1, [71, 72])
    cache.rollback()
    assert context.text(0) == cache.tokens == [1, 2, 3, 4, 5, 6, 71, 72]
    cache.share(2)
    assert context.text(1) == cache.tokens
