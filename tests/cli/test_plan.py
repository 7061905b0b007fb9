"""`cadcpp plan`: where memory would go, for people and for programs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from cadcpp.cli import main
from cadcpp.gguf.header import read_header
from cadcpp.residency.memory_plan import make_plan


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
