"""The header reader against the gguf package's own."""

from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from cadcpp.errors import ModelError
from cadcpp.gguf.header import read_header


@pytest.mark.parametrize("options", [{}, {"type_name": "Q8_0"}, {"type_name": "Q4_0", "n_layer": 3}])
def test_tensors_lie_where_the_gguf_package_says(tiny: Callable[..., Path], options: dict[str, str]) -> None:
    path = tiny("llama", **options)
    expected = {t.name: (int(t.tensor_type), int(t.data_offset), int(t.n_bytes)) for t in gguf.GGUFReader(path).tensors}
    header = read_header(path)
    assert {t.name: (t.type, t.offset, t.n_bytes) for t in header.tensors} == expected
    assert header.n_bytes == path.stat().st_size


@pytest.mark.parametrize("architecture", ["llama", "mamba", "lfm2", "bert", "t5"])
def test_metadata_equals_the_gguf_package(tiny: Callable[..., Path], architecture: str) -> None:
    path = tiny(architecture)
    reader = gguf.GGUFReader(path)
    expected = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.") and gguf.GGUFValueType.ARRAY not in field.types
    }
    header = read_header(path)
    assert header.metadata == expected
    assert header.architecture == expected["general.architecture"]


def test_get_asks_below_the_architecture(tiny: Callable[..., Path]) -> None:
    header = read_header(tiny("llama", n_layer=3))
    assert (header.get("block_count"), header.get("nothing", 7)) == (3, 7)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_file_cut_short(tiny: Callable[..., Path], tmp_path: Path, keep: float) -> None:
    data = tiny("llama").read_bytes()
    path = tmp_path / "short.gguf"
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ModelError, match="cut short"):
        read_header(path)
