"""How long compute threads wait for each other in a loop."""

import os
import subprocess
import sys

import pytest

SHOW = "import cadcpp.native.lib, os; print(os.environ.get('GOMP_SPINCOUNT'))"


def rounds(**variables: str) -> str:
    """Of waiting, as OpenMP is told before it is loaded."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in names} | variables
    return subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, env=environment).stdout.strip()


def test_waiting_is_bounded_so_that_another_program_gets_the_core() -> None:
    assert 300 <= int(rounds()) <= 100_000  # with 0, a token took three times as long alone; 300,000 are GNU's own


@pytest.mark.parametrize(
    ("variables", "found"),
    [({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None"), ({"OMP_WAIT_POLICY": "passive"}, "None")],
)
def test_what_somebody_has_set_is_left_alone(variables: dict[str, str], found: str) -> None:
    assert rounds(**variables) == found
