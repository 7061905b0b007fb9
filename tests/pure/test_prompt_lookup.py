"""Context lookup against a search of the whole text."""

import copy
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cadcpp.ngram.prompt_lookup import RECENT, ContextLookup, Continuation

TEXT = st.lists(st.integers(0, 3), max_size=40)
LONGEST, N, WIDTH = st.integers(1, 5), st.integers(1, 4), st.integers(1, 6)


def indexed(text: list[int], longest: int = 4) -> ContextLookup:
    lookup = ContextLookup(longest)
    lookup.extend(text)
    return lookup


def search(text: list[int], longest: int, n: int, width: int) -> list[Continuation]:
    """What a lookup is to propose, found without an index."""
    found: list[Continuation] = []
    for match in range(min(longest, len(text)), 0, -1):
        places = [at for at in range(len(text) - 1, match - 1, -1) if text[at - match : at] == text[-match:]][:RECENT]
        for tokens, count in Counter(tuple((text[at:] * n)[:n]) for at in places).items():
            if len(found) < width and tokens not in [other.tokens for other in found]:
                found.append(Continuation(tokens, match, count, len(places)))
    return found


@given(TEXT, LONGEST, N, WIDTH)
def test_proposals_are_those_of_a_search(text: list[int], longest: int, n: int, width: int) -> None:
    assert indexed(text, longest).propose(n, width) == search(text, longest, n, width)


@given(TEXT, st.lists(st.integers(0, 3), max_size=8), LONGEST, N, WIDTH)
def test_a_path_counts_as_text_and_does_not_become_text(
    text: list[int], path: list[int], longest: int, n: int, width: int
) -> None:
    lookup = indexed(text, longest)
    before = copy.deepcopy(vars(lookup))
    assert lookup.propose(n, width, path) == search(text + path, longest, n, width)
    assert vars(lookup) == before


@given(st.lists(TEXT, max_size=4), st.integers(0, 20), TEXT, LONGEST)
def test_after_any_changes_the_index_is_that_of_the_text(
    texts: list[list[int]], kept: int, last: list[int], longest: int
) -> None:
    lookup = ContextLookup(longest)
    for text in texts:
        lookup.align(text)
    text = (texts[-1][:kept] if texts else []) + last
    lookup.align(text)
    assert vars(lookup) == vars(indexed(text, longest))
    assert len(lookup) == len(text)


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        pytest.param([], [], [], id="no text"),
        pytest.param([1, 2, 3], [], [], id="nothing again"),
        pytest.param([1, 2, 3, 4, 1, 2], [], [((3, 4), 2, 1, 1)], id="the longest match"),
        pytest.param(
            [1, 2, 3, 4, 9, 2, 5, 6, 9, 1, 2],
            [],
            [((3, 4), 2, 1, 1), ((5, 6), 1, 1, 2)],
            id="a longer match before a more recent one",
        ),
        pytest.param(
            [7, 1, 2, 7, 3, 4, 7, 1, 2, 7],
            [],
            [((3, 4), 4, 1, 1), ((1, 2), 1, 2, 3)],
            id="each counts what its own match went on with",
        ),
        pytest.param([7, 1, 2, 7, 3, 4, 7], [], [((3, 4), 1, 1, 2), ((1, 2), 1, 1, 2)], id="the most recent first"),
        pytest.param([1, 2, 3, 4, 5], [1], [((2, 3), 1, 1, 1)], id="after a path"),
        pytest.param([8, 1], [2, 8, 1], [((2, 8), 2, 1, 1)], id="a match that reaches into the path"),
        pytest.param([1, 2, 1, 2, 1], [], [((2, 1), 3, 1, 1)], id="round in circles"),
    ],
)
def test_examples(text: list[int], path: list[int], expected: list[tuple[tuple[int, ...], int, int, int]]) -> None:
    assert indexed(text).propose(2, 4, path) == [Continuation(*fields) for fields in expected]


def test_a_circle_goes_on() -> None:
    assert indexed([9, 1, 2, 3, 1, 2]).propose(7, 1)[0].tokens == (3, 1, 2, 3, 1, 2, 3)


def test_of_many_occurrences_the_recent_ones_count() -> None:
    text = [0, 1] * 10 + [0, 2] * (RECENT - 1) + [0]
    assert indexed(text, 1).propose(1, 9) == [
        Continuation((2,), 1, RECENT - 1, RECENT),
        Continuation((1,), 1, 1, RECENT),
    ]
