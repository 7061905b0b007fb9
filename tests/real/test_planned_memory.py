"""What the plan counts against what a process holds at most, where everything fits."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cadcpp.models.demo import DemoPair

pytestmark = pytest.mark.real

N_CTX = 4096
SHORT, LONG = 600, 2000  # tokens of a prompt; the short one too has a pass as wide as they get
PROCESS = """
import json, sys
from cadcpp import SamplingConfig, Session, SessionConfig
from cadcpp.residency.footprint import whole_cells
from cadcpp.system.memory_limits import peak_bytes

verifier, draft, n_prompt, n_ctx, fallback = sys.argv[1:]
with Session(verifier, draft, SessionConfig(n_ctx=int(n_ctx), fallback=fallback)) as session:
    ids = [300 + 7 * i % 900 for i in range(int(n_prompt))]
    for _ in session.stream(ids, SamplingConfig(temperature=0.0), 6):
        pass
    plan, filled = session.plan, whole_cells(int(n_prompt)) / int(n_ctx)
    empty = (1 - filled) * (plan.cache + plan.draft_cache)  # caches take memory as the text fills them
    print(json.dumps({"planned": plan.peak - empty, "measured": peak_bytes(), "streams": plan.streams}))
"""


def measure(verifier: Path, draft: Path, fallback: str, n_prompt: int) -> dict[str, Any]:
    command = [sys.executable, "-c", PROCESS, str(verifier), str(draft), str(n_prompt), str(N_CTX), fallback]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(f"{verifier.name}, {fallback}: {found}")
    assert not found["streams"]
    return found


@pytest.mark.parametrize("n_prompt", [SHORT, pytest.param(LONG, marks=pytest.mark.slow)])
def test_the_demo_pair_takes_what_is_planned(demo: DemoPair, n_prompt: int) -> None:
    found = measure(demo.verifier, demo.draft, "cost", n_prompt)
    assert found["measured"] == pytest.approx(found["planned"], rel=0.03)


@pytest.mark.slow  # random numbers for 300 million weights
def test_a_pair_with_a_large_vocabulary_takes_what_is_planned(tiny: Callable[..., Path]) -> None:
    """Its logits are the most of its buffers, so trees have all the nodes that there is memory for."""
    verifier = tiny("llama", n_layer=12, n_embd=1024, n_head=16, n_head_kv=4, n_ff=4096, **VOCABULARY)
    draft = tiny("llama", n_layer=4, n_embd=256, n_head=4, n_head_kv=2, n_ff=1024, **VOCABULARY)
    found = measure(verifier, draft, "none", LONG)
    assert found["measured"] == pytest.approx(found["planned"], rel=0.03)


VOCABULARY: dict[str, Any] = {"n_vocab": 150_000, "n_ctx_train": N_CTX, "type_name": "Q8_0"}
