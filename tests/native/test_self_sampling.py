"""Text that a model writes by itself, and the n-gram model of it: interrupted or not, a seed gives the same."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from cadcpp.cli import main
from cadcpp.errors import ToolError
from cadcpp.gguf.header import read_header
from cadcpp.gguf.vocabulary import fingerprint
from cadcpp.models import demo, parallel_sampler
from cadcpp.models.demo import DemoPair
from cadcpp.models.make_ngram import make_ngram
from cadcpp.models.self_sampling import SampleConfig, sample
from cadcpp.native.context import Context
from cadcpp.native.model import Model
from cadcpp.ngram.file import load
from cadcpp.residency.context_shape import ContextShape
from tests.support.chi2 import p_value

TEMPLATE = "<s>the {{ messages[0].content }}</s> and"
WAVE = 64 * 128  # tokens


def write(path: Path, part: Path, n: int, seed: int = 0, temperature: float = 1.0) -> list[list[int]]:
    with closing(Model(path, stub=True)) as vocabulary:
        config = SampleConfig(n_tokens=n, seed=seed, temperature=temperature)
        return [text.tolist() for text in sample(path, vocabulary, config, part, lambda done, total: None)]


def replayed(path: Path, prompt: list[int], text: list[int]) -> NDArray[np.float32]:
    """Logits before each token of ``text``, in a context of its own."""
    ids = prompt + text
    with closing(Model(path)) as model:
        n = len(ids)
        shape = ContextShape(n_cells=256, n_batch=n, n_outputs=n, n_seq=1)
        with closing(Context(model, shape, 1)) as context:
            context.batch.add(ids, 0, 0, 1, True)
            context.decode()
            return context.logits(n)[len(prompt) - 1 : -1].copy()


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_each_text_is_drawn_from_what_the_model_says_about_it_alone(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str | None
) -> None:
    path = tiny("llama", chat_template=template)
    seen: list[NDArray[np.float32]] = []
    original = parallel_sampler.draw

    def spy(logits: NDArray[np.float32], temperature: float, rng: np.random.Generator) -> NDArray[np.int32]:
        if len(logits) == parallel_sampler.N_SEQ:
            seen.append(logits.copy())
        return original(logits, temperature, rng)

    monkeypatch.setattr(parallel_sampler, "draw", spy)
    texts = write(path, tmp_path / "part", WAVE, temperature=1.5)
    with closing(Model(path, stub=True)) as model:
        prompt = parallel_sampler.opening(model).prompt
    at = 0
    ended = 0
    for text in texts[:12]:
        seq, step = divmod(at, 128)  # texts follow each other sequence by sequence
        told = np.array([seen[step + i][seq] for i in range(len(text) - 1)])
        np.testing.assert_allclose(told, replayed(path, prompt, text)[1:], atol=2e-2)
        ended += step > 0
        at += len(text)
    assert ended > 0


def test_a_question_is_followed_by_the_template_and_a_reply_by_another_text(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    path = tiny("llama", chat_template=TEMPLATE)
    with closing(Model(path, stub=True)) as model:
        start, eos = parallel_sampler.opening(model), model.eos
        assert start.prompt == model.tokenize("<s>the ", add_special=False)
        assert start.turn == model.tokenize("</s> and", add_special=False)
    turn = start.turn
    ended = [text for text in write(path, tmp_path / "part", WAVE, temperature=1.5) if text.count(eos) == 2]
    assert ended
    for text in ended:
        at = text.index(eos)
        assert text[at : at + len(turn)] == turn and text[-1] == eos


def interrupt(path: Path, target: Path, at: int) -> None:
    """Sample three waves for an n-gram model, with Ctrl-C after ``at`` tokens."""

    def progress(done: int, total: int) -> None:
        if done >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_ngram(path, [], target, SampleConfig(n_tokens=2 * WAVE + 100), progress)


def test_a_sampling_that_was_interrupted_ends_as_if_it_were_not(tiny: Callable[..., Path], tmp_path: Path) -> None:
    path, config = tiny("llama"), SampleConfig(n_tokens=2 * WAVE + 100)
    whole, pieces, samples = tmp_path / "whole.ngram", tmp_path / "pieces.ngram", tmp_path / "pieces.ngram.samples"
    assert make_ngram(path, [], whole, config) == 3 * WAVE
    interrupt(path, pieces, WAVE + 500)
    with samples.open("ab") as file:
        file.write(b"cut short")
    interrupt(path, pieces, 2 * WAVE)
    told: list[int] = []
    make_ngram(path, [], pieces, config, lambda done, total: told.append(done))
    assert told[0] == WAVE + 64 and told[-1] == 3 * WAVE
    assert pieces.read_bytes() == whole.read_bytes()
    assert {file.name for file in tmp_path.iterdir()} == {"whole.ngram", "pieces.ngram"}


def test_what_was_sampled_with_other_settings_is_not_continued(tiny: Callable[..., Path], tmp_path: Path) -> None:
    path = tiny("llama")
    first = write(path, tmp_path / "part", 500)
    assert write(path, tmp_path / "part", 500, seed=1) != first
    assert write(path, tmp_path / "part", 500) == first
    assert sum(map(len, first)) == WAVE  # the least


def test_no_wave_repeats_another(tiny: Callable[..., Path], tmp_path: Path) -> None:
    tokens = np.concatenate(write(tiny("llama"), tmp_path / "part", 2 * WAVE))
    assert (tokens[:WAVE] != tokens[WAVE:]).any()


def test_draws_follow_the_temperature() -> None:
    logits = np.array([[0.0, 1.0, 3.0, -np.inf, 2.0], [5.0, -1.0, 0.0, 2.0, 1.0]], np.float32)
    rng = np.random.default_rng(0)
    drawn = np.array([parallel_sampler.draw(logits, 1.5, rng) for _ in range(4000)])

    def fit(temperature: float) -> float:
        p = np.exp(logits.astype(float) / temperature)
        return p_value([(np.bincount(drawn[:, i], minlength=5), p[i] / p[i].sum()) for i in range(2)])

    assert fit(1.5) > 1e-3 > fit(1.0)


def test_the_demo_has_one_beside_its_draft(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = tmp_path / "draft.gguf"
    draft.symlink_to(tiny("llama"))
    pair = DemoPair(draft=draft, verifier=draft)
    monkeypatch.setattr(demo, "make_demo", lambda *args, **kwargs: pair)
    made, found = (CliRunner().invoke(main, ["models", "demo", "--ngram"]) for _ in range(2))
    ngram = draft.with_name(demo.NGRAM_NAME)
    for result in (made, found):
        assert (result.exit_code, result.stdout.split()) == (0, [str(draft), str(draft), str(ngram)])
    assert "sampled 32768 of 32768 tokens" in made.stderr and found.stderr == ""
    header = read_header(draft)
    assert load(ngram, header.n_vocab, fingerprint(header)).n_vocab == header.n_vocab


def test_texts_and_samples_are_counted_together(tiny: Callable[..., Path], tmp_path: Path) -> None:
    text, ngram = tmp_path / "a.txt", tmp_path / "a.ngram"
    text.write_text("the cat sat on the mat. " * 20, "utf-8")
    arguments = ["models", "make-ngram", "-m", str(tiny("llama")), "-o", str(ngram), "--sample", "1000"]
    alone, both = (CliRunner().invoke(main, [*arguments, *texts]) for texts in ([], [str(text)]))
    for result in (alone, both):
        assert (result.exit_code, result.stdout) == (0, f"{ngram}\n")
        assert "sampled 8192 of 8192 tokens" in result.stderr
    n_alone, n_both = (int(result.stderr.splitlines()[-1].split()[0]) for result in (alone, both))
    assert n_both - n_alone == make_ngram(tiny("llama"), [text], tmp_path / "b.ngram")


def test_a_model_whose_template_takes_all_it_was_trained_for(tiny: Callable[..., Path], tmp_path: Path) -> None:
    path = tiny("llama", n_ctx_train=16, chat_template="the cat " * 40 + TEMPLATE)
    with pytest.raises(ToolError, match=r"was trained for 16 tokens"):
        write(path, tmp_path / "part", 10)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param([], ["text files", "--sample"], id="nothing to count"),
        pytest.param(["--sample", "0"], ["0"], id="no tokens"),
        pytest.param(["--sample", "10", "--temp", "0"], ["temperature", "0"], id="temp 0"),
        pytest.param(["--sample", "10", "--temp", "nan"], ["temperature", "nan"], id="temp nan"),
        pytest.param(["--sample", "10", "--seed", "-1"], ["seed", "-1"], id="seed"),
    ],
)
def test_an_argument_that_cannot_work(options: list[str], words: list[str]) -> None:
    result = CliRunner().invoke(main, ["models", "make-ngram", "-m", "none.gguf", "-o", "none.ngram", *options])
    assert result.exit_code == 2 and result.stdout == "" and len(result.stderr.splitlines()) == 1
    assert all(word in result.stderr for word in words)
