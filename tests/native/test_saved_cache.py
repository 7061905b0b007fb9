"""A KV cache that is kept in a file: the next session goes on from it, with the same logits, or without it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cadcpp.kv.cache import Cache
from cadcpp.kv.saved_cache import load_cache, save_cache
from cadcpp.kv.state_cache import cache_of
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
    save(path, tmp_path / "one.cache")
    return tmp_path / "one.cache"


def save(path: Path, file: Path) -> None:
    """The cache of a session whose texts ended after 30, 45 and 60 tokens; the first two ends are marked."""
    rig = Rig(path, n_ctx=256, max_rows=8)
    cache = cache_of(rig.context)
    for n in (30, 45, 60):
        cache.mark()
        cache.prefill(TEXT, n)
    save_cache(cache, file)
    rig.close()


def logits(rig: Rig, cache: Cache, text: list[int] = TEXT) -> np.ndarray:
    """What follows the text, of which the cache may hold a part."""
    cache.prefill(text, len(text) - 1)
    rig.context.batch.clear()
    rig.context.batch.add(text[-1:], len(text) - 1, 0, 1, True)
    rig.context.decode()
    return rig.context.logits(1).copy()


def test_the_next_session_goes_on_from_it(rig: Rig, file: Path) -> None:
    plain = logits(rig, Cache(rig.context))
    cache = Cache(rig.context)
    assert load_cache(cache, file) and cache.tokens == TEXT[:60]
    assert np.array_equal(logits(rig, cache), plain)
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("architecture", ["lfm2", "qwen35", "granitehybrid", "mamba2"])
def test_states_at_which_texts_ended_are_in_it(tiny: Callable[..., Path], tmp_path: Path, architecture: str) -> None:
    """Of one that ends elsewhere only what comes after the last of them is evaluated again."""
    file = tmp_path / "one.cache"
    save(tiny(architecture), file)
    with closing(Rig(tiny(architecture), n_ctx=256, max_rows=8)) as rig:
        for other, n_kept in ((TEXT[:50], 45), (TEXT[:40], 30), (TEXT[:20], 0)):
            text = [*other, *range(5, 25)]
            plain = logits(rig, cache_of(rig.context), text)
            cache = cache_of(rig.context)
            assert load_cache(cache, file) and cache.tokens == TEXT[:60]
            cache.align(text)
            assert len(cache) == n_kept
            assert np.array_equal(logits(rig, cache, text), plain)
            rig.context.clear()


def test_a_state_that_is_damaged_is_left_out(tiny: Callable[..., Path], tmp_path: Path) -> None:
    file = tmp_path / "one.cache"
    save(tiny("lfm2"), file)
    file.write_bytes(_flip(file.read_bytes()))  # the older of the two
    with closing(Rig(tiny("lfm2"), n_ctx=256, max_rows=8)) as rig:
        cache = cache_of(rig.context)
        assert load_cache(cache, file) and [mark.n for mark in cache.marks()] == [45]


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
@pytest.mark.parametrize("architecture", ["llama", "lfm2", "mamba2"])
def test_one_that_was_tampered_with_does_no_harm(
    tiny: Callable[..., Path], tmp_path: Path, architecture: str, n: int
) -> None:
    """Its digest is right, since whoever changed it made a new one; each is followed by a text on the same context."""
    path, file = tiny(architecture), tmp_path / "one.cache"
    save(path, file)
    command: list[str | Path] = [sys.executable, "-m", "tests.support.fuzzkeep", path, file, tmp_path / "tampered"]
    environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    done = subprocess.run(
        command, input=json.dumps(list(range(n))), capture_output=True, text=True, cwd=ROOT, env=environment
    )
    results = [line.split()[0] for line in done.stdout.splitlines()]
    print(f"\nkept caches: {n} tampered with, {results.count('refused')} refused")
    assert done.returncode == 0 and len(results) == n, done.stderr[-2000:]
    assert results.count("refused") > n / 2
