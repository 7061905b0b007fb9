"""`generate` writes the same token ids with drafts and without, whatever the weights and the machine."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cadcpp.cli import main

OFTEN = [("mixture", "Q8_0"), ("llama", "Q4_K")]
DENSE = [("llama", kind) for kind in ("Q8_0", "Q4_0", "Q4_1", "F16")]
STATES = [("lfm2", "Q8_0"), ("lfm2", "Q4_0"), ("lfm2moe", "Q8_0"), ("qwen35", "Q8_0"), ("qwen35moe", "Q8_0")]
SELDOM = [("mixture", "Q4_0"), *DENSE, *STATES]
CELLS = [
    pytest.param(*cell, id="-".join(cell), marks=() if cell in OFTEN else pytest.mark.slow) for cell in OFTEN + SELDOM
]
pytestmark = pytest.mark.usefixtures("drafting")

SIZES = {"n_embd": 256, "n_ff": 256}
HEADS = {"n_head": 8, "n_head_kv": 4}
PROMPT = "the cat and the dog and the hen "
DRAWN = ("--temp", 0.8, "--seed", 7)
GREEDY = ("--temp", 0)
TREE = ("--max-tree-size", 24, "--fallback", "none", "--ctx", 256, "--threads", 1)


@pytest.fixture
def write(tiny: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def write(architecture: str, kind: str, mode: str, *options: object) -> dict[str, Any]:
        sizes = {} if (architecture, kind) in STATES else SIZES | (HEADS if architecture == "llama" else {})
        files = ["-m", tiny(architecture, type_name=kind, **sizes)]
        if mode == "draft":
            files += ["-d", tiny(architecture, type_name="Q8_0", noise=0.02, **sizes)]
        command = ["generate", *files, "-p", PROMPT, "--speculative", mode, "--json", *TREE, *options]
        main([str(part) for part in command], standalone_mode=False)
        record: dict[str, Any] = json.loads(capsys.readouterr().out)
        return record

    return write


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize(("architecture", "kind"), CELLS)
def test_drafts_change_no_token(
    write: Callable[..., dict[str, Any]], architecture: str, kind: str, sampling: tuple[object, ...]
) -> None:
    records = {
        mode: write(architecture, kind, mode, *sampling, "-n", 48, "--exact", "strict")
        for mode in ("off", "draft", "ngram")
    }
    plain = records["off"]
    assert all(record["tokens"] == plain["tokens"] and record["stats"]["exact"] for record in records.values())
    assert records["draft"]["stats"]["passes"] < plain["stats"]["passes"]


def test_control_kernels_that_were_not_tried_change_tokens(write: Callable[..., dict[str, Any]]) -> None:
    """Of one of these types at least: which one it is depends on the machine."""

    def differs(architecture: str, kind: str, seed: int) -> bool:
        options = ("--temp", 0.8, "--seed", seed, "-n", 200, "--exact", "off")
        plain, drafted = (write(architecture, kind, mode, *options) for mode in ("off", "draft"))
        return bool(plain["tokens"] != drafted["tokens"])

    cells = [("llama", "BF16"), ("mixture", "Q8_0"), ("llama", "Q4_1")]
    assert any(differs(*cell, seed) for seed in range(4) for cell in cells)
