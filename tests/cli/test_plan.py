"""`cadcpp plan`: where memory would go, for people and for programs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cadcpp.cli import main
from cadcpp.gguf.header import read_header
from cadcpp.residency.expert_demand import ExpertDemand
from cadcpp.residency.memory_plan import make_plan
from cadcpp.runtime.learned_demand import LearnedDemand


@pytest.fixture
def arguments(tiny: Callable[..., Path]) -> list[str]:
    """A model that is much larger than the memory that it is to have."""
    model = tiny("llama", n_layer=8, n_embd=256, n_head=4, n_head_kv=2, n_ff=4096)
    header = read_header(model)
    ram = make_plan(header, None, ram=1 << 40, n_ctx=256, rows=64).fixed + header.n_bytes // 2
    return ["plan", "-m", str(model), "--ctx", "256", "--ram", f"{ram}B", "--disk-speed", "100MiB"]


def test_weights_that_are_streamed(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0 and result.exception is None
    assert "A pass over one token reads" in result.stdout and "Kernels: " in result.stdout


def test_weights_that_fit(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, [*arguments, "--ram", "4GB"])
    assert result.exit_code == 0 and "nothing is read after loading" in result.stdout


def test_for_programs(arguments: list[str]) -> None:
    values = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert values["streams"] and values["exact"] is True and values["read_bytes_per_pass"] > 0


@pytest.mark.parametrize(
    ("verifier", "found"),
    [
        ("lfm2", "A pass checks a chain of drafts, of which up to 16 wrong tokens are taken back."),
        ("mamba2", "A pass checks a chain of drafts; after a wrong one text is evaluated again."),
    ],
)
def test_what_a_pass_checks_of_drafts(tiny: Callable[..., Path], verifier: str, found: str) -> None:
    result = CliRunner().invoke(main, ["plan", "-m", str(tiny(verifier)), "--ctx", "256", "--ram", "1GB"])
    assert result.exit_code == 0 and found in result.stdout


def test_experts_that_do_not_fit(tiny: Callable[..., Path], state: Path) -> None:
    """What is known of them is said, and that nothing is known yet."""
    model = tiny("mixture", n_layer=4, n_embd=256, n_ff=512, n_experts=16, n_used=2)
    whole = make_plan(read_header(model), None, ram=1 << 40, n_ctx=256, rows=64)
    ram = whole.fixed + whole.layout.pinned_bytes + whole.layout.expert_bytes // 2
    arguments = ["plan", "-m", str(model), "--ctx", "256", "--ram", f"{ram}B", "--disk-speed", "100MiB"]
    before = CliRunner().invoke(main, arguments)
    assert "is learned while text is written" in before.stdout
    layers = read_header(model).number("block_count")
    demand = ExpertDemand(np.full((layers, 16), 0.01))
    demand.rate[:, :2], demand.n_rows = 1.0, 100
    LearnedDemand(read_header(model)).keep(demand)
    after = CliRunner().invoke(main, arguments)
    assert "% of a token's experts are in memory" in after.stdout
    values = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert values["hit_rate"] > 0.9 and values["read_bytes_per_pass"] < 0.1 * values["routed"]
