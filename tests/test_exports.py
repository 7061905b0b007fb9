"""What `import cadcpp` gives, and what it does not load."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import cadcpp

ROOT = Path(__file__).parents[1]
HEAVY = ("numpy", "llama_cpp", "gguf", "jinja2", "psutil", "prompt_toolkit")


def test_all_is_sorted_and_importable() -> None:
    assert cadcpp.__all__ == sorted(cadcpp.__all__)
    for name in cadcpp.__all__:
        assert getattr(cadcpp, name) is not None


def test_nothing_is_exported_twice_or_by_name_only() -> None:
    assert len(set(cadcpp.__all__)) == len(cadcpp.__all__)
    assert set(cadcpp._LATER) < set(cadcpp.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Lama'"):
        _ = cadcpp.Lama


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name)
def test_documents_import_nothing_deeper(page: Path) -> None:
    deeper = re.findall(r"(?:from|import) cadcpp\.[\w.]+", page.read_text("utf-8"))
    assert not deeper


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
