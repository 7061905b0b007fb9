"""A Katz model as one file, which is mapped rather than copied into memory.

All numbers are little-endian. After the header come the arrays, each padded to 8 bytes: the unigrams, then for
bigrams and for trigrams the five of a `Table`. A unigram takes 4 bytes, a history 12 and a continuation 4 (16
and 6 if the vocabulary has more than 65536 tokens). In a vocabulary of 49152 a million tokens make 3.8 MB (Python
source), 3.9 MB (English documentation) or 18 MB (random), and two million 5.9, 4.1 or 36 MB.
"""

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cadcpp.errors import ConfigError, ModelError, PairError
from cadcpp.ngram.katz import Katz
from cadcpp.ngram.table import WIDTH, Table, history_dtype, token_dtype

MAGIC = b"KATZ\r\n\x1a\n"
VERSION = 1  # a change of WIDTH or STEP takes another one
FINGERPRINT_BYTES = 32
_PART = 2**16  # elements that are checked at a time
_AGAIN = "copy it again, or make it again"


class _Header(NamedTuple):
    magic: bytes
    version: int
    n_vocab: int
    fingerprint: bytes
    n_bytes: int  # of the whole file
    n_singles: int  # histories of bigrams, without the sentinel
    n_bigrams: int
    n_pairs: int  # histories of trigrams, without the sentinel
    n_trigrams: int


_STRUCT = struct.Struct("<8sII32s5Q")


def pack(model: Katz, fingerprint: bytes) -> bytes:
    """The file's bytes. ``fingerprint`` is a hash of the vocabulary, of FINGERPRINT_BYTES such as SHA-256 has."""
    if len(fingerprint) != FINGERPRINT_BYTES:
        raise ConfigError(f"a fingerprint must have {FINGERPRINT_BYTES} bytes, got {len(fingerprint)}")
    tables = (model.bigrams, model.trigrams)
    sizes = [n for table in tables for n in (len(table.history) - 1, len(table.token) - WIDTH)]
    header = _Header(MAGIC, VERSION, model.n_vocab, fingerprint, 0, *sizes)
    header = header._replace(n_bytes=_end(header))
    arrays: list[NDArray[Any]] = [model.unigrams]
    for table in tables:
        arrays += [table.history, table.first, table.backoff, table.token, table.cost]
    body = (np.asarray(array, kind).tobytes() for array, (kind, _) in zip(arrays, _arrays(header), strict=True))
    return _STRUCT.pack(*header) + b"".join(data + bytes(-len(data) % 8) for data in body)


def load(path: Path, n_vocab: int, fingerprint: bytes) -> Katz:
    """The model in ``path``, if it is for the vocabulary of this size and fingerprint.

    Raises PairError for another vocabulary, and ModelError for anything but a whole, sound file of this version.
    """
    if not path.is_file():
        raise ModelError(f"no n-gram model at {path}: check the path")
    try:
        with path.open("rb") as file:
            header = _read_header(path, file.read(_STRUCT.size))
            _check_vocabulary(path, header, n_vocab, fingerprint)
            _check_size(path, header, os.fstat(file.fileno()).st_size)
            data = mmap.mmap(file.fileno(), header.n_bytes, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelError(f"cannot read n-gram model {path}: {error.strerror}; check its permissions") from None
    unigrams, *rest = _views(data, header)
    bigrams, trigrams = Table(*rest[:5]), Table(*rest[5:])
    if not (_sound_logs(unigrams) and (unigrams <= 0).all() and _sound(bigrams, n_vocab) and _sound(trigrams, n_vocab)):
        raise ModelError(f"{path} is damaged: {_AGAIN}")
    return Katz(unigrams, bigrams, trigrams)


def _arrays(header: _Header) -> list[tuple[np.dtype[Any], int]]:
    """Type and length of every array of the file."""
    arrays: list[tuple[np.dtype[Any], int]] = [(np.dtype("<f4"), header.n_vocab)]
    for n_histories, n_grams in ((header.n_singles, header.n_bigrams), (header.n_pairs, header.n_trigrams)):
        arrays += [
            (history_dtype(header.n_vocab), n_histories + 1),
            (np.dtype("<u4"), n_histories + 2),
            (np.dtype("<f4"), n_histories + 1),
            (token_dtype(header.n_vocab), n_grams + WIDTH),
            (np.dtype("<u2"), n_grams + WIDTH),
        ]
    return arrays


def _n_padded(kind: np.dtype[Any], length: int) -> int:
    return (kind.itemsize * length + 7) // 8 * 8


def _end(header: _Header) -> int:
    """Bytes of a file with these arrays."""
    return _STRUCT.size + sum(_n_padded(kind, length) for kind, length in _arrays(header))


def _views(data: mmap.mmap, header: _Header) -> Iterator[NDArray[Any]]:
    at = _STRUCT.size
    for kind, length in _arrays(header):
        yield np.frombuffer(data, kind, length, at)
        at += _n_padded(kind, length)


def _read_header(path: Path, data: bytes) -> _Header:
    if not data.startswith(MAGIC):
        raise ModelError(f"{path} is not an n-gram model: it starts with {data[:8]!r}, not {MAGIC!r}; check the path")
    if len(data) < _STRUCT.size:
        raise ModelError(f"{path} is cut short: {len(data)} bytes; {_AGAIN}")
    header = _Header(*_STRUCT.unpack(data))
    if header.version != VERSION:
        raise ModelError(f"{path} has version {header.version} of its format, not {VERSION}: make it again")
    return header


def _check_vocabulary(path: Path, header: _Header, n_vocab: int, fingerprint: bytes) -> None:
    if header.n_vocab != n_vocab:
        raise PairError(
            f"{path} is for a vocabulary of {header.n_vocab} tokens, the model has {n_vocab}: make one for this model"
        )
    if header.fingerprint != fingerprint:
        raise PairError(f"{path} is for another vocabulary than the model's: make one for this model")


def _check_size(path: Path, header: _Header, n_bytes: int) -> None:
    if n_bytes < header.n_bytes:
        raise ModelError(f"{path} is cut short: {n_bytes} bytes of {header.n_bytes}; {_AGAIN}")
    if n_bytes > header.n_bytes:
        raise ModelError(f"{path} has {n_bytes - header.n_bytes} bytes after its end: {_AGAIN}")
    if header.n_bytes != _end(header):
        raise ModelError(f"{path} is damaged: its header contradicts itself; {_AGAIN}")


def _sound(table: Table, n_vocab: int) -> bool:
    """Whether no look-up can leave the table's arrays."""
    return bool(
        table.history[-1] == np.iinfo(table.history.dtype).max
        and table.first[0] == 0
        and table.first[-2] == table.first[-1] == len(table.token) - WIDTH
        and all((part[:-1] < part[1:]).all() for part in _parts(table.history))
        # The numbers are unsigned, so a step down is a large one.
        and all((np.diff(part) <= WIDTH).all() for part in _parts(table.first))
        and all((part < n_vocab).all() for part in _parts(table.token))
        and _sound_logs(table.backoff)
    )


def _sound_logs(logs: NDArray[np.float32]) -> bool:
    """Whether they can be added up: no infinity, nothing that is not a number."""
    return all((np.abs(part) < 1e6).all() for part in _parts(logs))


def _parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The array in pieces that overlap by one, since checks need memory, and files can be larger than it."""
    return (array[at : at + _PART + 1] for at in range(0, len(array), _PART))
