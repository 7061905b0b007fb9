"""Header-only files of published hybrids: llama.cpp takes them for the models, and plans are made of them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.predict.hybrids import MEMORY_GB, PAIRS, cast, line
from bench.predict.published import HYBRIDS, write
from cadcpp.cli import main
from cadcpp.gguf.blocks import cache_heads, state_bytes
from cadcpp.gguf.header import read_header
from cadcpp.models.catalog import find
from cadcpp.native.snapshots import keeps_snapshots

MIB = 1 << 20
STATES = {  # bytes of a sequence
    "qwen3.5-0.8b": 19.3,
    "qwen3.5-4b": 50.3,
    "qwen3.5-9b": 50.3,
    "qwen3.5-27b": 149.6,
    "lfm2-350m": 0.078,
    "lfm2-2.6b": 0.34,
    "lfm2.5-2.6b": 0.34,
}


@pytest.mark.parametrize("name", HYBRIDS)
def test_a_file_is_like_the_published_one(tmp_path: Path, name: str) -> None:
    header = read_header(path := write(name, tmp_path))
    assert header.n_bytes == pytest.approx(find(name)[-1].n_bytes, rel=0.04)
    assert path.stat().st_blocks * 512 < MIB
    assert state_bytes(header) / MIB == pytest.approx(STATES[name], rel=0.02)
    assert len(cache_heads(header)) == len(HYBRIDS[name].attention)
    assert keeps_snapshots(header)  # for which llama.cpp has to find every tensor


def test_a_plan_is_made_of_it(tmp_path: Path) -> None:
    verifier, draft = write("qwen3.5-27b", tmp_path), write("qwen3.5-0.8b", tmp_path)
    command = ["plan", "-m", verifier, "-d", draft, "--ram", "8GB", "--disk-speed", "400MiB", "--json"]
    result = CliRunner().invoke(main, [str(part) for part in command], catch_exceptions=False)
    plan = json.loads(result.stdout)
    assert plan["streams"] and plan["states"] >= state_bytes(read_header(verifier))
    assert 8e9 < plan["read_bytes_per_pass"] < 12e9


@pytest.mark.parametrize("name", PAIRS)
def test_more_memory_is_no_slower(tmp_path: Path, name: str) -> None:
    draft = PAIRS[name]
    headers = read_header(write(name, tmp_path)), read_header(write(draft, tmp_path)) if draft else None
    casts = [cast(*headers, n_gb, 0.7) for n_gb in MEMORY_GB if n_gb > 1]
    assert [one.plain_s for one in casts] == sorted((one.plain_s for one in casts), reverse=True)
    assert all(one.drafted_s <= one.plain_s <= one.mapped_s * 1.001 for one in casts)


def test_too_little_memory_is_said(tmp_path: Path) -> None:
    header = read_header(write("qwen3.5-9b", tmp_path))
    assert "does not fit" in line("qwen3.5-9b", header, header, 1)
