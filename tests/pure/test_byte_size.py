"""Sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cadcpp.errors import ConfigError
from cadcpp.util.byte_size import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("0", 0),
        ("123456", 123456),
        ("12B", 12),
        ("1.2GB", 1_200_000_000),
        ("900MiB", 900 * 2**20),
        ("500M", 500 * 2**20),
        ("1g", 2**30),
        ("1.5 kB", 1500),
        (" 2TiB ", 2 * 2**40),
        ("0.1GB", 100_000_000),
    ],
)
def test_a_size_is_read(text: str, n_bytes: int) -> None:
    assert parse_size(text) == n_bytes


@pytest.mark.parametrize(
    "text", ["", " ", "GB", "-1", "1.2.3GB", "1,2GB", "1XB", "nan", "1e9", "1 i", "9" * 5000, "٣GB"]
)
def test_what_is_no_size_is_named_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="not a size: .*900MiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (88_201_792, "88.2 MB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (1_188_246_656, "1.19 GB"),
        (9_996_000_000, "10.0 GB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_a_size_is_written_with_three_digits(n_bytes: int, text: str) -> None:
    assert format_size(n_bytes) == text


@given(st.integers(0, 10**15))
def test_digits_alone_are_exact(n_bytes: int) -> None:
    assert parse_size(str(n_bytes)) == n_bytes


@given(st.integers(0, 10**15))
def test_what_is_written_is_read_back_to_three_digits(n_bytes: int) -> None:
    assert abs(parse_size(format_size(n_bytes)) - n_bytes) <= 0.00501 * n_bytes
