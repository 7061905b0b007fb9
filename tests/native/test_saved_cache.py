"""A KV cache that is kept in a file: the next session goes on from it, with the same logits, or without it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cadcpp.kv.cache import Cache
from cadcpp.kv.saved_cache import load_cache, save_cache
from tests.support.command import ROOT
from tests.support.rig import Rig

TEXT = list(range(100, 170))


@pytest.fixture(scope="module")
def path(tiny: Callable[..., Path]) -> Path:
    return tiny("llama")


@pytest.fixture
def rig(path: Path) -> Iterator[Rig]:
    rig = Rig(path, n_ctx=256, max_rows=8)
    yield rig
    rig.close()


@pytest.fixture
def file(path: Path, tmp_path: Path) -> Path:
    """The cache of another session."""
    rig = Rig(path, n_ctx=256, max_rows=8)
    cache = Cache(rig.context)
    cache.prefill(TEXT, 60)
    save_cache(cache, tmp_path / "one.cache")
    rig.close()
    return tmp_path / "one.cache"


def logits(rig: Rig, cache: Cache) -> np.ndarray:
    """What follows the text, of which the cache may hold a part."""
    cache.prefill(TEXT, len(TEXT) - 1)
    rig.context.batch.clear()
    rig.context.batch.add(TEXT[-1:], len(TEXT) - 1, 0, 1, True)
    rig.context.decode()
    return rig.context.logits(1).copy()


def test_the_next_session_goes_on_from_it(rig: Rig, file: Path) -> None:
    plain = logits(rig, Cache(rig.context))
    cache = Cache(rig.context)
    assert load_cache(cache, file) and cache.tokens == TEXT[:60]
    assert np.array_equal(logits(rig, cache), plain)
    assert file.stat().st_mode & 0o077 == 0


def _cut(data: bytes) -> bytes:
    return data[:-1]


def _flip(data: bytes) -> bytes:
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


def _other_text(data: bytes) -> bytes:
    head, state = data.split(b"\n", 1)
    entry = json.loads(head)
    entry["tokens"][0] += 1
    return json.dumps(entry).encode() + b"\n" + state


def _other_model(data: bytes) -> bytes:
    return data.replace(b".gguf", b".ggux", 1)


@pytest.mark.parametrize("damage", [_cut, _flip, _other_text, _other_model, lambda _: b"", lambda _: b"[]\n"])
def test_what_is_not_as_it_was_is_left_alone(rig: Rig, file: Path, damage: Callable[[bytes], bytes]) -> None:
    plain = logits(rig, Cache(rig.context))
    file.write_bytes(damage(file.read_bytes()))
    cache = Cache(rig.context)
    assert not load_cache(cache, file) and cache.tokens == []
    assert np.array_equal(logits(rig, cache), plain)


def test_what_does_not_fit_is_left_alone(path: Path, file: Path) -> None:
    small = Rig(path, n_ctx=48, max_rows=8)
    cache = Cache(small.context)
    assert not load_cache(cache, file) and cache.tokens == []
    small.close()


def test_nothing_is_there(rig: Rig, tmp_path: Path) -> None:
    assert not load_cache(Cache(rig.context), tmp_path / "none")


@pytest.mark.parametrize("n", [150, pytest.param(5000, marks=pytest.mark.slow)])
def test_one_that_was_tampered_with_does_no_harm(path: Path, file: Path, tmp_path: Path, n: int) -> None:
    """Its digest is right, since whoever changed it made a new one; each is followed by a text on the same context."""
    command: list[str | Path] = [sys.executable, "-m", "tests.support.fuzzkeep", path, file, tmp_path / "tampered"]
    environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    done = subprocess.run(
        command, input=json.dumps(list(range(n))), capture_output=True, text=True, cwd=ROOT, env=environment
    )
    results = [line.split()[0] for line in done.stdout.splitlines()]
    print(f"\nkept caches: {n} tampered with, {results.count('refused')} refused")
    assert done.returncode == 0 and len(results) == n, done.stderr[-2000:]
    assert results.count("refused") > n / 2
