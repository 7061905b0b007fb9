"""Files of n-gram models: what is written comes back, and nothing else is taken."""

import dataclasses
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cadcpp.errors import CadError, ConfigError, ModelError, PairError
from cadcpp.ngram.estimate import estimate
from cadcpp.ngram.file import FINGERPRINT_BYTES, MAGIC, load, pack
from cadcpp.ngram.katz import Katz
from cadcpp.ngram.table import WIDTH, Table

HASH = bytes(range(FINGERPRINT_BYTES))
N_VOCAB = 12
HEADER = struct.Struct("<8sII32s5Q")


def model(n_vocab: int = N_VOCAB) -> Katz:
    texts = np.random.default_rng(0).integers(0, N_VOCAB, (3, 20)) + n_vocab - N_VOCAB
    return estimate(list(texts), n_vocab)


def read(path: Path, data: bytes) -> Katz:
    path.write_bytes(data)
    return load(path, N_VOCAB, HASH)


def use(katz: Katz) -> None:
    before, last = np.meshgrid(np.arange(-1, N_VOCAB + 1), np.arange(-1, N_VOCAB + 1))
    katz.lookup(before.ravel(), last.ravel(), N_VOCAB)


@pytest.mark.parametrize(
    ("n_vocab", "history", "token"),
    [(N_VOCAB, "<u4", "<u2"), (65535, "<u4", "<u2"), (65536, "<u8", "<u2"), (65537, "<u8", "<u4")],
)
def test_a_model_comes_back(tmp_path: Path, n_vocab: int, history: str, token: str) -> None:
    path, made = tmp_path / "model", model(n_vocab)
    path.write_bytes(pack(made, HASH))
    loaded = load(path, n_vocab, HASH)
    np.testing.assert_array_equal(loaded.unigrams, made.unigrams)
    for ours, theirs in ((made.bigrams, loaded.bigrams), (made.trigrams, loaded.trigrams)):
        for field in dataclasses.fields(Table):
            np.testing.assert_array_equal(getattr(theirs, field.name), getattr(ours, field.name))
        assert (theirs.history.dtype, theirs.token.dtype) == (np.dtype(history), np.dtype(token))
    last = np.arange(n_vocab - N_VOCAB, n_vocab)
    for one, other in zip(made.lookup(last[::-1], last, 8), loaded.lookup(last[::-1], last, 8), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_empty_model_comes_back(tmp_path: Path) -> None:
    use(read(tmp_path / "model", pack(estimate([], N_VOCAB), HASH)))


def test_the_header() -> None:
    katz = model()
    data = pack(katz, HASH)
    sizes = [n for t in (katz.bigrams, katz.trigrams) for n in (len(t.history) - 1, len(t.token) - WIDTH)]
    assert HEADER.unpack_from(data) == (MAGIC, 1, N_VOCAB, HASH, len(data), *sizes)


def test_a_fingerprint_of_another_length() -> None:
    with pytest.raises(ConfigError, match="^a fingerprint must have 32 bytes, got 3$"):
        pack(model(), b"abc")


def test_a_file_cut_anywhere(tmp_path: Path) -> None:
    path, data = tmp_path / "model", pack(model(), HASH)
    for n in range(len(MAGIC), len(data)):
        with pytest.raises(
            ModelError, match=rf"^{path} is cut short: {n} bytes[^\n]*; copy it again, or make it again$"
        ):
            read(path, data[:n])


@pytest.mark.parametrize("data", [b"", MAGIC[:-1], b"GGUF" * 30, bytes(500)])
def test_another_file(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(
        ModelError, match=r"^[^\n]*model is not an n-gram model: it starts with [^\n]*; check the path$"
    ):
        read(tmp_path / "model", data)


def test_bytes_after_the_end(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has 1 bytes after its end: copy it again, or make it again$"):
        read(tmp_path / "model", pack(model(), HASH) + b"\0")


def test_another_version(tmp_path: Path) -> None:
    data = bytearray(pack(model(), HASH))
    data[8] = 2
    with pytest.raises(ModelError, match=r"has version 2 of its format, not 1: make it again$"):
        read(tmp_path / "model", bytes(data))


def test_another_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(pack(model(), HASH))
    with pytest.raises(PairError, match=r"vocabulary of 12 tokens, the model has 13: make one for this model$"):
        load(path, N_VOCAB + 1, HASH)
    with pytest.raises(PairError, match=r"is for another vocabulary than the model's: make one for this model$"):
        load(path, N_VOCAB, HASH[::-1])


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", Path("/dev/null")):
        with pytest.raises(ModelError, match=f"^no n-gram model at {path}: check the path$"):
            load(path, N_VOCAB, HASH)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "model").touch()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelError, match=r"cannot read n-gram model .*: Permission denied; check its permissions$"):
        load(tmp_path / "model", N_VOCAB, HASH)


@pytest.mark.parametrize("field", range(4))
@pytest.mark.parametrize("size", [0, 1, 2**32, 2**61, 2**64 - 1])
def test_a_header_with_other_sizes(tmp_path: Path, field: int, size: int) -> None:
    data = pack(model(), HASH)
    header = list(HEADER.unpack_from(data))
    header[5 + field] = size
    with pytest.raises(
        ModelError, match=r"is damaged: its header contradicts itself; copy it again, or make it again$"
    ):
        read(tmp_path / "model", HEADER.pack(*header) + data[HEADER.size :])


def _with(table: Table, **values: Any) -> Table:
    """The table with elements of its arrays set, each given by place and value."""
    arrays = {field.name: getattr(table, field.name).copy() for field in dataclasses.fields(Table)}
    for name, (at, value) in values.items():
        arrays[name][at] = value
    return Table(**arrays)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param({"history": (1, 0)}, id="histories out of order"),
        pytest.param({"history": (-1, 2**32 - 2)}, id="no sentinel"),
        pytest.param({"first": (0, 1)}, id="begins late"),
        pytest.param({"first": (3, 2**32 - 1)}, id="outside"),
        pytest.param({"first": (3, 0)}, id="backwards"),
        pytest.param({"first": (slice(2, 4), 0)}, id="too many continuations"),
        pytest.param({"first": (-1, 0)}, id="ends early"),
        pytest.param({"token": (5, N_VOCAB)}, id="no such token"),
        pytest.param({"backoff": (2, np.nan)}, id="not a number"),
        pytest.param({"backoff": (2, np.inf)}, id="infinite"),
    ],
)
def test_nonsense_inside(tmp_path: Path, damage: dict[str, Any]) -> None:
    katz = model()
    for broken in (
        Katz(katz.unigrams, _with(katz.bigrams, **damage), katz.trigrams),
        Katz(katz.unigrams, katz.bigrams, _with(katz.trigrams, **damage)),
    ):
        with pytest.raises(ModelError, match=r"is damaged: copy it again, or make it again$"):
            read(tmp_path / "model", pack(broken, HASH))


def test_nonsense_far_inside(tmp_path: Path) -> None:
    """Large arrays are checked in pieces; what is wrong between two of them counts too."""
    rng, path = np.random.default_rng(0), tmp_path / "model"
    katz = estimate([rng.integers(0, 1000, 100_000)], 1000)
    for at in (2**16 - 1, 2**16, 2**16 + 1):
        for damage in ({"history": (at, 2**31)}, {"first": (at, 0)}, {"token": (at, 1000)}, {"backoff": (at, np.nan)}):
            path.write_bytes(pack(Katz(katz.unigrams, katz.bigrams, _with(katz.trigrams, **damage)), HASH))
            with pytest.raises(ModelError, match="is damaged"):
                load(path, 1000, HASH)
    path.write_bytes(pack(katz, HASH))
    load(path, 1000, HASH)


def test_a_sentinel_with_continuations(tmp_path: Path) -> None:
    katz = model()
    broken = _with(katz.trigrams, first=(-2, katz.trigrams.first[-1] - 1))
    with pytest.raises(ModelError, match="is damaged"):
        read(tmp_path / "model", pack(Katz(katz.unigrams, katz.bigrams, broken), HASH))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.5])
def test_a_token_without_a_probability(tmp_path: Path, value: float) -> None:
    katz = model()
    data = pack(katz, HASH)
    start = HEADER.size + 4 * 3
    with pytest.raises(ModelError, match="is damaged"):
        read(tmp_path / "model", data[:start] + struct.pack("<f", value) + data[start + 4 :])


def test_a_flipped_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    data = pack(model(), HASH)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 0xFF
        _read_or_refuse(tmp_path / "model", bytes(changed))


@given(st.binary(max_size=200), st.integers(0, 2000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_refused_or_harmless(tmp_path: Path, noise: bytes, at: int) -> None:
    data = pack(model(), HASH)
    _read_or_refuse(tmp_path / "model", data[:at] + noise + data[at + len(noise) :])


def _read_or_refuse(path: Path, data: bytes) -> None:
    try:
        katz = read(path, data)
    except CadError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        use(katz)
