"""`cadcpp plan`: where memory would go, for people and for programs."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cadcpp.cli import main
from cadcpp.errors import ConfigError
from cadcpp.gguf.header import read_header
from cadcpp.residency.expert_demand import ExpertDemand
from cadcpp.residency.memory_plan import make_plan
from cadcpp.runtime import session_plan
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


@pytest.fixture
def mixture(tiny: Callable[..., Path]) -> Path:
    return tiny("mixture", n_layer=4, n_embd=256, n_ff=512, n_experts=16, n_used=2)


@pytest.fixture
def half(mixture: Path) -> list[str]:
    """A mixture in memory for half of its experts."""
    whole = make_plan(read_header(mixture), None, ram=1 << 40, n_ctx=256, rows=64)
    ram = whole.fixed + whole.layout.pinned_bytes + whole.layout.expert_bytes // 2
    return ["plan", "-m", str(mixture), "--ctx", "256", "--ram", f"{ram}B", "--disk-speed", "100MiB"]


def learn(mixture: Path) -> None:
    """That tokens use the first two experts of every layer, and hardly another."""
    demand = ExpertDemand(np.full((read_header(mixture).number("block_count"), 16), 0.01))
    demand.rate[:, :2], demand.n_rows = 1.0, 100
    LearnedDemand(read_header(mixture)).keep(demand)


def test_experts_that_do_not_fit(mixture: Path, half: list[str]) -> None:
    """What is known of them is said, and that nothing is known yet."""
    assert "is learned while text is written" in CliRunner().invoke(main, half).stdout
    learn(mixture)
    assert "% of a token's experts are in memory" in CliRunner().invoke(main, half).stdout
    values = json.loads(CliRunner().invoke(main, [*half, "--json"]).stdout)
    assert values["hit_rate"] > 0.9 and values["read_bytes_per_pass"] < 0.1 * values["routed"]


def test_what_other_budgets_would_bring_a_mixture(mixture: Path, half: list[str]) -> None:
    """More memory reads less, and at last nothing; a quarter has room for what is used most, once that is known."""
    alike = json.loads(CliRunner().invoke(main, [*half, "--json"]).stdout)
    learn(mixture)
    skewed = json.loads(CliRunner().invoke(main, [*half, "--json"]).stdout)
    for values in (alike, skewed):
        read = [other["read_bytes"] for other in values["outlook"]]
        assert [other["share"] for other in values["outlook"]] == [0.25, 0.5, 0.75, 1.0]
        assert read == sorted(read, reverse=True) and read[-1] == 0
        assert values["outlook"][1]["ram"] == pytest.approx(values["ram"], rel=0.02)
        assert values["outlook"][1]["read_bytes"] == pytest.approx(values["read_bytes_per_pass"], rel=0.1, abs=9)
    assert skewed["outlook"][0]["read_bytes"] < 0.2 * alike["outlook"][0]["read_bytes"]
    lines = CliRunner().invoke(main, half).stdout.splitlines()
    assert [line.split()[0] for line in lines if "% " in line][-4:] == ["25%", "50%", "75%", "100%"]


@pytest.mark.parametrize("left_out", [True, False])
def test_a_draft_that_is_left_out(
    tiny: Callable[..., Path], half: list[str], monkeypatch: pytest.MonkeyPatch, left_out: bool
) -> None:
    """Its memory is the experts'."""
    monkeypatch.setattr(session_plan, "why_left_out", lambda *_: "as was measured" if left_out else None)
    draft = tiny("mixture", n_layer=1)
    drafted = [*half, "-d", str(draft)]
    alone, values = (json.loads(CliRunner().invoke(main, [*a, "--json"]).stdout) for a in (half, drafted))
    assert values["left_out"] == (draft.stat().st_size if left_out else 0)
    assert (values["draft"] == 0) == (values["experts"] == alone["experts"]) == left_out
    found = "The draft is not loaded: " in CliRunner().invoke(main, drafted).stdout
    assert found == left_out


@pytest.mark.parametrize("architecture", ["llama", "mixture"])
def test_the_least_memory_that_is_named_is_enough(tiny: Callable[..., Path], architecture: str) -> None:
    """By a refusal and by a plan; half a MiB less is refused."""
    sizes = {"n_layer": 8, "n_embd": 256, "n_ff": 4096} if architecture == "llama" else {"n_layer": 4, "n_ff": 2048}
    header = read_header(tiny(architecture, **sizes))
    whole = make_plan(header, None, ram=1 << 40, n_ctx=256, rows=16)
    with pytest.raises(ConfigError) as refused:
        make_plan(header, None, ram=whole.fixed, n_ctx=256, rows=16)
    named = int(re.search(r"allow (\d+) MiB", str(refused.value))[1])  # type: ignore[index]
    plan = make_plan(header, None, ram=named << 20, n_ctx=256, rows=16)
    assert 0 < plan.least <= named << 20 and make_plan(header, None, ram=plan.least, n_ctx=256, rows=16).streams
    with pytest.raises(ConfigError):
        make_plan(header, None, ram=plan.least - (1 << 19), n_ctx=256, rows=16)
