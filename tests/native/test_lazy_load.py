"""Loading without reading: every place for a stub, and what is left where there is none."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cadcpp.native import model as model_module
from cadcpp.native.model import Model
from cadcpp.system import scratch_file, stub
from cadcpp.system.mapping import mappings
from cadcpp.system.stub import Stub


@pytest.fixture
def path(tiny: Callable[..., Path]) -> Path:
    return tiny("llama", n_layer=4, n_embd=256, n_head=8, n_head_kv=2, n_ff=1024)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The stubs that were made."""
    paths: list[Path] = []

    class Seen(Stub):
        def remap(self) -> object:  # type: ignore[override]
            paths.extend(self.paths)
            return super().remap()

    monkeypatch.setattr(model_module, "Stub", Seen)
    yield paths
    assert not any(path.exists() for path in paths)


def is_mapped(path: Path) -> bool:
    return any(found.path == str(path.resolve()) for found in mappings())


def test_in_memory(path: Path, made: list[Path]) -> None:
    with closing(Model(path, stub=True)) as model:
        assert model.mapping is not None and model.limited == "" and is_mapped(path)
    assert [place.parent for place in made] == [Path("/proc/self/fd")] and not is_mapped(path)


def test_in_a_folder_where_memory_takes_none(
    path: Path, made: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with closing(Model(path, stub=True)) as model:
        assert model.mapping is not None and model.limited == "" and is_mapped(path)
    assert [place.parent for place in made] == [tmp_path]


def test_beside_the_model_where_no_temporary_folder_takes_one(
    path: Path, made: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(scratch_file, "_FOLDERS", ())
    monkeypatch.setattr(scratch_file, "_COMMON", ("/nowhere",))
    with closing(Model(path, stub=True)) as model:
        assert model.mapping is not None and model.limited == ""
    assert [place.parent for place in made] == [path.parent]


def test_where_no_stub_s_mapping_is_found_all_is_read_and_paged_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stub, "remap", lambda _: None)
    with closing(Model(path, stub=True)) as model:
        assert model.mapping is not None and is_mapped(path)
        assert model.limited.startswith("loading reads all weights: ") and "memory: its mapping is not found" in (
            model.limited
        )


def test_where_no_mapping_is_found_at_all_that_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as on a system without /proc."""
    monkeypatch.setattr(model_module, "has_maps", lambda: False)
    monkeypatch.setattr(model_module, "mapped", lambda _: [])
    with closing(Model(path, stub=True)) as model:
        assert model.mapping is None
        assert model.limited == f"{stub.NOT_PAGED}: {stub.NO_MAPS}"


def test_what_llama_cpp_cannot_map_is_copied(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "is_shareable", lambda _: False)
    with closing(Model(path)) as model:
        assert model.mapping is None and model.n_vocab > 0 and not is_mapped(path)
