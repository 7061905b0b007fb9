"""Bytes in pieces become whole characters, and nothing of a stop string."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cadcpp.runtime.detokenizer import Detokenizer


def run(pieces: list[bytes], stop: list[str]) -> tuple[str, bool]:
    stream = Detokenizer(stop)
    text = "".join(stream.feed(piece) for piece in pieces)
    return text + stream.finish(), stream.stopped


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted(min(place, len(data)) for place in places)
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def test_half_a_character_is_held_back() -> None:
    stream = Detokenizer()
    euro = "€".encode()
    assert [stream.feed(euro[:1]), stream.feed(euro[1:2]), stream.feed(euro[2:] + b"!")] == ["", "", "€!"]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"a\xe2\x82", id="cut short"),
        pytest.param(b"a\xff", id="never valid"),
    ],
)
def test_broken_bytes_become_one_replacement_character(data: bytes) -> None:
    assert run([data], []) == ("a�", False)


@pytest.mark.parametrize(
    ("pieces", "stop", "text", "stopped"),
    [
        pytest.param([b"one END two"], ["END"], "one ", True, id="in one piece"),
        pytest.param([b"one E", b"N", b"D two"], ["END"], "one ", True, id="over three"),
        pytest.param([b"one EN", b"CODE"], ["END"], "one ENCODE", False, id="only nearly"),
        pytest.param([b"one EN"], ["END"], "one EN", False, id="begun at the end"),
        pytest.param([b"aab"], ["ab"], "a", True, id="begins inside its own beginning"),
        pytest.param([b"xyEND"], ["END", "yE"], "x", True, id="the earlier of two"),
        pytest.param([b"END"], ["END"], "", True, id="at the very start"),
        pytest.param([b"5", "€".encode()[:2], "€".encode()[2:]], ["€"], "5", True, id="of several bytes"),
        pytest.param([b"text"], [""], "text", False, id="an empty stop string is none"),
    ],
)
def test_stop_strings(pieces: list[bytes], stop: list[str], text: str, stopped: bool) -> None:
    assert run(pieces, stop) == (text, stopped)


def test_nothing_comes_after_a_stop() -> None:
    stream = Detokenizer(["."])
    assert (stream.feed(b"a.b"), stream.feed(b"c"), stream.finish()) == ("a", "", "")


# Few letters, so that stop strings and their beginnings are common.
@given(
    data=st.one_of(st.text("abé€", max_size=40).map(str.encode), st.binary(max_size=20)),
    places=st.lists(st.integers(0, 60), max_size=12),
    stop=st.lists(st.text("abé€", min_size=1, max_size=4), max_size=3),
)
def test_any_chunking_gives_the_same_text(data: bytes, places: list[int], stop: list[str]) -> None:
    assert run(cut(data, places), stop) == run([data], stop)


@given(data=st.text("abé€", max_size=40), stop=st.lists(st.text("abé€", min_size=1, max_size=4), max_size=3))
def test_the_text_ends_before_the_first_stop_string(data: str, stop: list[str]) -> None:
    ends = [end for end in range(len(data) + 1) if data[:end].endswith(tuple(stop))] if stop else []
    shown = min((data[: ends[0]].removesuffix(s) for s in stop), key=len) if ends else data
    assert run([data.encode()], stop) == (shown, bool(ends))


@given(data=st.text("abé€", max_size=40), places=st.lists(st.integers(0, 60), max_size=12))
def test_without_stop_strings_only_half_characters_wait(data: str, places: list[int]) -> None:
    stream, seen = Detokenizer(), b""
    shown = ""
    for piece in cut(data.encode(), places):
        seen += piece
        shown += stream.feed(piece)
        assert shown == seen.decode("utf-8", "ignore")


@pytest.mark.parametrize("data", [["a€a"], ["a", "€", "a"], ["a€", "a"]])
def test_of_overlapping_stop_strings_the_first_complete_one_counts(data: list[str]) -> None:
    assert run([piece.encode() for piece in data], ["€", "a€a"]) == ("a", True)
