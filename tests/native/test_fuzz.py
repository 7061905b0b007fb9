"""Files that somebody damaged, or made to do damage: one line that refuses them, or what they hold, and nothing else.

The few here run every time, and thousands with `make fuzz`. A seed that failed does the same damage again.
"""

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from cadcpp.errors import ModelError
from cadcpp.gguf.header import read_header
from cadcpp.gguf.validate import check_generative, check_vocabulary
from tests.support.fuzz import fuzz
from tests.support.mutate import File, put, strings, take_apart

if sys.platform != "linux":
    pytest.skip("memory is limited as Linux does it", allow_module_level=True)

TEMPLATE = "{{ messages[0].content }}"
FEW = {
    "header": 500,
    "pair": 60,
    "inspect": 60,
    "plan": 40,
    "plan for a draft": 40,
    "tools": 30,
    "quantize": 80,
    "check": 40,
    "load": 250,
    "load a draft": 100,
}
MANY = {
    "header": 12000,
    "pair": 1500,
    "inspect": 1500,
    "plan": 1500,
    "plan for a draft": 1500,
    "tools": 1000,
    "quantize": 4000,
    "check": 1000,
}


def open_damaged(door: str, source: Path, scratch: Path, n: int) -> None:
    outcome = fuzz(door, source, scratch, range(n))
    print(f"\n{door}: {outcome}")
    assert not outcome.failures
    assert outcome.results.total() == n and min(outcome.results[kind] for kind in ("refused", "accepted")) > n / 20


@pytest.mark.parametrize(("door", "n"), FEW.items())
def test_a_damaged_file_is_refused_or_read(tiny: Callable[..., Path], tmp_path: Path, door: str, n: int) -> None:
    open_damaged(door, tiny(chat_template=TEMPLATE), tmp_path, n)


def test_a_feed_forward_layer_of_three_dimensions_is_refused(tiny: Callable[..., Path], tmp_path: Path) -> None:
    outcome = fuzz("tools", tiny(chat_template=TEMPLATE), tmp_path, [305, 528])
    assert outcome.results == {"refused": 2}


@pytest.mark.slow
@pytest.mark.parametrize(("door", "n"), MANY.items())
def test_many_damaged_files(tiny: Callable[..., Path], tmp_path: Path, door: str, n: int) -> None:
    open_damaged(door, tiny(chat_template=TEMPLATE), tmp_path, n)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "door", "n"),
    [
        pytest.param({"chat_template": TEMPLATE}, "load", 8000, id="verifier"),
        pytest.param({"chat_template": TEMPLATE}, "load a draft", 3000, id="draft"),
        pytest.param({"n_embd": 256, "n_head": 8, "n_ff": 256, "n_layer": 1}, "load", 1000, id="wide"),
        pytest.param({"architecture": "mixture"}, "load", 2000, id="mixture"),
    ],
)
def test_nothing_that_llama_cpp_is_handed_ends_the_process(
    tiny: Callable[..., Path], tmp_path: Path, source: dict[str, object], door: str, n: int
) -> None:
    open_damaged(door, tiny(**source), tmp_path, n)


def test_the_second_of_two_files_is_checked_like_the_first(tiny: Callable[..., Path], tmp_path: Path) -> None:
    file = take_apart(tiny().read_bytes())
    parts = [tmp_path / f"model-0000{number}-of-00002.gguf" for number in (1, 2)]
    for path in parts:
        path.write_bytes(with_number(file, b"split.count", 2).to_bytes())
    assert len(read_header(parts[0]).parts) == 2
    parts[1].write_bytes(parts[1].read_bytes()[:3000])
    with pytest.raises(ModelError, match="00002-of-00002.gguf is not a readable GGUF model"):
        read_header(parts[0])


# One at a time: what llama.cpp 0.5.0 ends the process over, and what would take all memory. --------------


def with_number(file: File, key: bytes, number: int | float) -> File:
    kind, form = (6, "<f") if isinstance(number, float) else (4, "<I")
    put(file, key, b"")
    file.values[-1].kind, file.values[-1].body = kind, struct.pack(form, number)
    return file


def _doubled(file: File) -> None:
    texts = strings(file, b"tokenizer.ggml.tokens")
    put(file, b"tokenizer.ggml.tokens", [*texts[:-1], texts[-2]])


def _integers(file: File) -> None:
    next(info for info in file.infos if info.name == b"output.weight").kind = gguf.GGMLQuantizationType.I32


def _half_norm(file: File) -> None:
    file.infos[-2].kind = gguf.GGMLQuantizationType.F16  # output_norm, which keeps its place
    file.infos[-1].offset = file.infos[-2].offset + 128


def _unaligned(file: File) -> None:
    file.alignment = 1
    with_number(file, b"general.alignment", 1)
    put(file, b"general.name", b"x" * (1 - len(file.to_bytes()) % 2))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(_doubled, "has the token .* twice", id="a token twice"),
        pytest.param(
            lambda file: with_number(file, b"llama.attention.layer_norm_rms_epsilon", -1e-5), "epsilon", id="epsilon"
        ),
        pytest.param(
            lambda file: with_number(file, b"llama.attention.layer_norm_rms_epsilon", float("nan")), "nan", id="nan"
        ),
        pytest.param(lambda file: with_number(file, b"llama.expert_used_count", 2), "0 experts", id="experts"),
        pytest.param(lambda file: with_number(file, b"llama.expert_count", 8), "8 experts", id="unused experts"),
        pytest.param(lambda file: with_number(file, b"llama.nextn_predict_layers", 3), "3 of 2 layers", id="ahead"),
        pytest.param(lambda file: put(file, b"llama.rope.scaling.type", b"x"), "rope scaling of 'x'", id="rope"),
        pytest.param(lambda file: put(file, b"llama.block_count", b"many"), "'many' layers", id="layers"),
        pytest.param(lambda file: put(file, b"tokenizer.ggml.model", b"none"), "type 'none'", id="no vocabulary"),
        pytest.param(lambda file: put(file, b"\0x", b"1"), "without a name", id="no name"),
        pytest.param(_integers, "'output.weight' in i32", id="integers"),
        pytest.param(_half_norm, "'output_norm.weight' in f16", id="half a norm"),
        pytest.param(_unaligned, "no multiple of 32", id="alignment"),
        pytest.param(lambda file: put(file, b"general.architecture", b"a\x1b[2J"), "no architecture", id="name"),
        pytest.param(lambda file: setattr(file, "n_values", 2**40), "1099511627776 pieces", id="metadata"),
        pytest.param(lambda file: setattr(file, "n_infos", 2**40), "1099511627776 tensors", id="tensors"),
    ],
)
def test_what_is_refused_before_llama_cpp_sees_it(
    tiny: Callable[..., Path], tmp_path: Path, damage: Callable[[File], object], words: str
) -> None:
    file, path = take_apart(tiny().read_bytes()), tmp_path / "damaged.gguf"
    damage(file)
    path.write_bytes(file.to_bytes())
    with pytest.raises(ModelError, match=words) as refusal:
        header = read_header(path)
        check_generative(header)
        check_vocabulary(header)
    assert str(path) in str(refusal.value) and len(str(refusal.value).splitlines()) == 1


def test_a_header_of_gigabytes_is_not_read(tiny: Callable[..., Path], tmp_path: Path) -> None:
    """A hole, said to be 12 million empty strings: each would take 64 bytes of memory."""
    file, path = take_apart(tiny().read_bytes()), tmp_path / "huge.gguf"
    file.values[1].kind, file.values[1].body = 9, struct.pack("<iQ", 8, 3 << 22)
    path.write_bytes(file.to_bytes()[:2000])
    os.truncate(path, 8 << 30)
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); sys.argv = sys.argv[1:]; "
    code += "from cadcpp.cli import main; main()"
    command = [sys.executable, "-c", code, "cadcpp", "models", "inspect", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "not a readable GGUF model" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelError, match="pipe.gguf is no file"):
        read_header(tmp_path / "pipe.gguf")
