"""Drafting with an n-gram model made from text files: the same text, and files that do not fit."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from cadcpp.cli import main
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.errors import CadError, PairError
from cadcpp.models.make_ngram import make_ngram
from cadcpp.runtime.session import Session
from cadcpp.tree.limits import TreeLimits

TEXT = "the cat sat on the mat and the dog sat on the cat. " * 40


@pytest.fixture
def texts(tmp_path: Path) -> list[Path]:
    (tmp_path / "a.txt").write_text(TEXT, "utf-8")
    (tmp_path / "b.txt").write_text("the dog ran. " * 30, "utf-8")
    return [tmp_path / "a.txt", tmp_path / "b.txt"]


def write(path: Path, ngram: Path | None, rows: int, sampling: SamplingConfig) -> list[int]:
    config = SessionConfig(n_ctx=256, n_threads=1, ngram=ngram, tree=TreeLimits(max_size=rows), fallback="none")
    with Session(path, None, config) as session:
        prompt = session.model.tokenize("the cat sat")
        return [t for chunk in session.stream(prompt, sampling, 60) for t in chunk.tokens]


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_text_is_the_same(tiny: Callable[..., Path], texts: list[Path], tmp_path: Path, temperature: float) -> None:
    model, ngram = tiny("llama", type_name="Q8_0"), tmp_path / "cat.katz"
    assert make_ngram(model, texts, ngram) > 300
    sampling = SamplingConfig(temperature=temperature, seed=3)
    assert write(model, ngram, 16, sampling) == write(model, None, 1, sampling) == write(model, None, 16, sampling)


def test_a_file_for_another_vocabulary_is_refused(
    tiny: Callable[..., Path], texts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ngram = tiny("llama", type_name="Q8_0"), tmp_path / "cat.katz"
    monkeypatch.setattr("cadcpp.models.make_ngram.fingerprint", lambda header: bytes(32))
    make_ngram(model, texts, ngram)
    with pytest.raises(PairError, match=r"cat\.katz"):
        write(model, ngram, 16, SamplingConfig())


def test_a_damaged_file_is_refused_in_one_line(tiny: Callable[..., Path], texts: list[Path], tmp_path: Path) -> None:
    model, ngram = tiny("llama", type_name="Q8_0"), tmp_path / "cat.katz"
    make_ngram(model, texts, ngram)
    ngram.write_bytes(ngram.read_bytes()[:-5])
    result = CliRunner().invoke(main, ["generate", "-m", str(model), "--ngram", str(ngram), "-p", "the", "--ctx", "64"])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1 and "cat.katz" in result.stderr


@pytest.mark.parametrize("data", [None, b"caf\xe9", b""])
def test_texts_that_cannot_be_read(tiny: Callable[..., Path], tmp_path: Path, data: bytes | None) -> None:
    text = tmp_path / "x.txt"
    if data is not None:
        text.write_bytes(data)
    with pytest.raises(CadError):
        make_ngram(tiny("llama", type_name="Q8_0"), [text], tmp_path / "out.katz")
    assert not (tmp_path / "out.katz").exists()


def test_the_command_tells_what_it_made(tiny: Callable[..., Path], texts: list[Path], tmp_path: Path) -> None:
    model, ngram = tiny("llama", type_name="Q8_0"), tmp_path / "cat.katz"
    arguments = ["models", "make-ngram", "-m", str(model), "-o", str(ngram), *map(str, texts)]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (0, f"{ngram}\n") and "tokens" in result.stderr
