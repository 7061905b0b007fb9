"""`cadcpp models inspect` and `check`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from click.testing import CliRunner

from cadcpp.cli import main
from cadcpp.runtime import kernel_choice
from cadcpp.tree.granularity import Granularity


def invoke(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["models", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_inspect_tells_what_the_gguf_package_tells(tiny: Callable[..., Path]) -> None:
    path = tiny(type_name="Q8_0", n_padding=10)
    code, out, _ = invoke("inspect", path, "--json")
    card, tensors = json.loads(out), gguf.GGUFReader(path).tensors
    assert code == 0
    assert card["n_parameters"] == sum(int(tensor.n_elements) for tensor in tensors)
    assert card["types"] == {"q8_0": sum(int(tensor.n_bytes) for tensor in tensors if len(tensor.shape) == 2)}
    assert (card["n_layer"], card["n_embd"], card["head_size"], card["n_vocab"]) == (2, 64, 32, 364)
    assert card["n_bytes"] == path.stat().st_size


def test_inspect_for_people(tiny: Callable[..., Path]) -> None:
    code, out, _ = invoke("inspect", tiny(type_name="F16"))
    rows = dict(line.split(maxsplit=1) for line in out.splitlines() if " " in line)
    assert code == 0 and rows["architecture"] == "llama"
    assert "f16" in rows["weights"] and "the text is that of plain decoding" in rows["streamed"]


@pytest.mark.parametrize(
    ("values", "kept", "streamed"), [("q8_0", False, False), ("f16", True, True), ("auto", True, False)]
)
def test_kernels_are_told_for_the_cache_that_is_asked_for(
    tiny: Callable[..., Path], values: str, kept: bool, streamed: bool
) -> None:
    code, out, _ = invoke("inspect", tiny(type_name="Q8_0"), "--cache-values", values)
    rows = dict(line.split("  ", maxsplit=1) for line in out.splitlines())
    assert code == 0 and ["in f16" in rows[where] for where in ("in memory", "streamed")] == [kept, streamed]


def test_values_in_f16_are_not_told_where_auto_would_not_take_them(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {False: Granularity(), True: Granularity(least=2)}
    monkeypatch.setattr(kernel_choice, "_granularity", lambda _made, _n_threads, mode: found[mode.f16_values])
    _, out, _ = invoke("inspect", tiny(type_name="Q8_0"), "--cache-values", "auto")
    assert "in f16" not in out
    _, out, _ = invoke("check", tiny(type_name="Q8_0"), tiny(type_name="Q8_0"), "--cache-values", "f16")
    assert out.count("cached values in f16, 2 rows at least") == 2


@pytest.mark.parametrize("command", ["inspect", "plan"])
def test_what_is_not_exact_is_said(tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(kernel_choice, "_granularity", lambda *_: None)
    path = tiny(type_name="F16")
    arguments = ["models", "inspect", path] if command == "inspect" else ["plan", "-m", path]
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    card = json.loads(result.stdout)
    assert card["exact"] is False and "rounds every row alike" in card["inexact_because"]


def test_inspect_loads_neither_the_vocabulary_nor_the_package_for_writing(tiny: Callable[..., Path]) -> None:
    code = (
        "import sys; from cadcpp.cli import main; import cadcpp.gguf.header as g\n"
        "g.read_vocabulary = g.read_token_types = None\n"
        f"main(['models', 'inspect', {str(tiny())!r}], standalone_mode=False)\n"
        "print([name for name in ('llama_cpp', 'gguf') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_check_of_a_pair_that_fits(tiny: Callable[..., Path]) -> None:
    code, out, _ = invoke("check", tiny(type_name="Q8_0"), tiny(type_name="Q8_0", noise=0.02), "--measure")
    rows = dict(line.split("  ", maxsplit=1) for line in out.replace("special tokens", "special  ").splitlines())
    assert code == 0 and list(rows)[1] == "vocabulary"
    assert "the same 354 tokens" in rows["vocabulary"]
    assert "the text is that of plain decoding" in out
    assert 0 < int(rows["agreement"].split("%")[0]) <= 100


def test_check_tells_what_differs_and_does_no_harm(tiny: Callable[..., Path]) -> None:
    code, out, _ = invoke("check", tiny(type_name="F16"), tiny(n_padding=30, begin="<|x|>"))
    assert code == 0
    assert "31 special or padding tokens differ (1 to 383)" in out
    assert out.count("the text is that of plain decoding") == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"other_vocab": True}, ["token 353", "make-draft"], id="another vocabulary"),
        pytest.param({"n_head": 4}, ["heads of 16", "multiples of 32"], id="heads that a q8_0 cache cannot hold"),
    ],
)
def test_check_of_a_pair_that_does_not_fit(
    tiny: Callable[..., Path], options: dict[str, object], words: list[str]
) -> None:
    code, _, err = invoke("check", tiny(), tiny(**options))
    assert code == 1 and len(err.splitlines()) == 1
    assert all(word in err for word in words), err


@pytest.mark.parametrize(
    ("verifier", "found"),
    [
        ("llama", "a pass checks a tree of drafts"),
        ("lfm2", "a pass checks a chain of drafts, of which up to 16 wrong tokens are taken back"),
        ("mamba2", "a pass checks a chain of drafts; after a wrong one text is evaluated again"),
    ],
)
def test_check_tells_what_a_pass_can_check(tiny: Callable[..., Path], verifier: str, found: str) -> None:
    code, out, _ = invoke("check", tiny(verifier), tiny("mamba"))
    assert code == 0 and found in out
