"""What `import cadcpp` gives, and what it does not load."""

import subprocess
import sys

import pytest

import cadcpp

HEAVY = ("numpy", "llama_cpp", "gguf", "jinja2", "psutil", "prompt_toolkit")


def test_all_is_sorted_and_importable() -> None:
    assert cadcpp.__all__ == sorted(cadcpp.__all__)
    for name in cadcpp.__all__:
        assert getattr(cadcpp, name) is not None


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import cadcpp", id="import"),
        pytest.param("from cadcpp.cli import main; main(['--help'], standalone_mode=False)", id="help"),
        pytest.param("from cadcpp.cli import main; main(['--version'], standalone_mode=False)", id="version"),
        pytest.param("from cadcpp.cli import main; main(['chat', '--help'], standalone_mode=False)", id="chat-help"),
    ],
)
def test_light_work_loads_nothing_heavy(code: str) -> None:
    code += f"; import sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
