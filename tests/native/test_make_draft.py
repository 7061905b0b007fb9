"""Drafts made from their verifier: what is left out, and what is kept."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cadcpp.cli import main
from cadcpp.errors import ToolError
from cadcpp.gguf.header import read_header
from cadcpp.gguf.vocabulary import check_pair
from cadcpp.models.draft_quality import QUESTIONS, Drafting, Text, agreement, measure, write_texts
from cadcpp.models.edit.drop_layers import drop_layers, silenced
from cadcpp.models.edit.narrow_ffn import narrow
from cadcpp.models.edit.widen_ffn import widen
from cadcpp.models.make_draft import Place, Variant, make_draft
from cadcpp.policy.pass_cost import PassCost
from cadcpp.residency.memory_plan import make_plan
from tests.native.test_widen_ffn import answers

CLOSE = 1e-4


def differ(a: Path, b: Path) -> float:
    return float(np.abs(answers(a) - answers(b)).max())


@pytest.mark.parametrize("type_name", ["F32", "Q8_0"])
def test_narrowing_takes_back_what_widening_added(tiny: Callable[..., Path], tmp_path: Path, type_name: str) -> None:
    plain, wide, back = tiny(type_name=type_name), tmp_path / "wide.gguf", tmp_path / "back.gguf"
    widen(plain, wide, 128 + 1024)
    assert narrow(wide, back)
    assert read_header(back).get("feed_forward_length") == 256
    assert differ(plain, back) < CLOSE


def test_a_model_without_idle_neurons_is_left_alone(tiny: Callable[..., Path], tmp_path: Path) -> None:
    for path in (tiny(), tiny("mixture"), tiny("mamba")):
        assert not narrow(path, tmp_path / "narrow.gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_silenced_layer_is_as_good_as_dropped_and_comes_back(tiny: Callable[..., Path], tmp_path: Path) -> None:
    whole, tried, dropped = tiny(n_layer=3, type_name="Q8_0"), tmp_path / "tried.gguf", tmp_path / "dropped.gguf"
    tried.write_bytes(whole.read_bytes())
    drop_layers(whole, dropped, [1])
    assert read_header(dropped).get("block_count") == 2
    with silenced(read_header(tried), 1):
        assert differ(tried, dropped) < CLOSE < differ(tried, whole)
    assert tried.read_bytes() == whole.read_bytes()


def test_agreement_counts_guesses(tiny: Callable[..., Path]) -> None:
    verifier, draft = tiny(type_name="Q8_0"), tiny(type_name="Q8_0", noise=0.1)
    texts, costs = write_texts(verifier, None)
    assert agreement(verifier, texts) == 1
    assert agreement(draft, texts) < 0.9
    assert costs.known
    others = [Text(text.prompt, [(token + 1) % 354 for token in text.reply]) for text in texts]
    assert agreement(verifier, others) < 0.1


@pytest.mark.parametrize("with_draft", [False, True])
def test_passes_are_measured_whoever_drafts(tiny: Callable[..., Path], with_draft: bool) -> None:
    verifier = tiny(type_name="Q8_0")
    texts, costs = write_texts(verifier, verifier if with_draft else None)
    assert costs.known and costs.count.sum() > 1
    assert float(costs.estimate()[1]) > 0


def test_a_draft_that_is_the_verifier_promises_more_tokens_than_a_poor_one(tiny: Callable[..., Path]) -> None:
    verifier = tiny(type_name="Q8_0")
    texts, _ = write_texts(verifier, None)
    same, poor = measure(verifier, texts), measure(tiny(type_name="Q8_0", noise=0.1), texts)
    for drafting in (same, poor):
        assert drafting.tokens[0] == 1 and (np.diff(drafting.tokens) >= 0).all()
    assert same.tokens[-1] > poor.tokens[-1] >= 1


def test_the_draft_with_the_best_expected_speed_is_kept(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cadcpp.models.draft_quality.QUESTIONS", QUESTIONS[:2])
    verifier = tiny(n_layer=8, n_embd=256, n_head=8, n_head_kv=2, n_ff=1536)
    header = read_header(verifier)
    ram = make_plan(header, None, ram=1 << 40, n_ctx=256, rows=64).fixed + (40 << 20)
    assert make_plan(header, header, ram=ram + header.n_bytes, n_ctx=256, rows=64).streams
    place, seen = Place(ram=ram, disk_bytes_per_s=1e6, n_ctx=256), list[Variant]()
    best = make_draft(verifier, tmp_path / "draft.gguf", place, seen.append)
    assert best.tokens_per_s == max(variant.tokens_per_s for variant in seen)
    assert {variant.name for variant in seen} == {*"Q2_K Q3_K_M Q4_K_M Q8_0".split(), *less_layers(seen)}
    assert len(less_layers(seen)) == 2
    check_pair(header, read_header(tmp_path / "draft.gguf"))
    assert [path.name for path in tmp_path.iterdir()] == ["draft.gguf"]


def less_layers(variants: list[Variant]) -> list[str]:
    return [variant.name for variant in variants if "less" in variant.name]


def test_a_draft_that_does_not_pay_is_not_kept(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    useless = Drafting(agreement=0.0, tokens=np.ones(256), node_s=1.0, nodes=1.0)
    monkeypatch.setattr("cadcpp.models.make_draft.measure", lambda *_: useless)
    target = tmp_path / "draft.gguf"
    result = CliRunner().invoke(main, ["models", "make-draft", str(tiny(n_layer=1)), "-o", str(target), "--ctx", "256"])
    rows = [line for line in result.stderr.splitlines() if not line.startswith("making ")]
    assert [row.split()[0] for row in rows] == "draft Q2_K Q3_K_M Q4_K_M Q8_0 cadcpp:".split()
    assert "plain decoding is expected" in rows[-1] and "take a small model of the same family" in rows[-1]
    assert (result.exit_code, result.stdout, list(tmp_path.iterdir())) == (1, "", [])


def at_once(n: int) -> Drafting:
    """A draft of which ``n`` tokens are right, whatever the text, in no time."""
    return Drafting(agreement=1.0, tokens=np.minimum(np.arange(1.0, 257.0), n), node_s=1e-9, nodes=1.0)


@pytest.mark.parametrize(("row_s", "pays"), [(1e-4, True), (1.0, False)])
def test_in_memory_what_rows_cost_decides_on_a_draft(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row_s: float, pays: bool
) -> None:
    verifier, target, costs = tiny(n_layer=1), tmp_path / "draft.gguf", PassCost()
    texts, _ = write_texts(verifier, None)
    for n_rows in (1, 2, 4, 8, 16, 64):
        costs.add(n_rows, 0.01 + row_s * (n_rows - 1))
    monkeypatch.setattr("cadcpp.models.make_draft.write_texts", lambda *_, **place: (texts, costs))
    monkeypatch.setattr("cadcpp.models.make_draft.measure", lambda *_: at_once(8))
    place = Place(ram=8 << 30, disk_bytes_per_s=1e9, n_ctx=256)
    if not pays:
        with pytest.raises(ToolError, match="plain decoding is expected"):
            make_draft(verifier, target, place, lambda variant: None)
        return
    best = make_draft(verifier, target, place, lambda variant: None)
    assert target.exists() and best.tokens_per_s > 2 / 0.01


def test_memory_that_leaves_no_room_for_a_draft(tiny: Callable[..., Path], tmp_path: Path) -> None:
    place = Place(ram=30 << 20, disk_bytes_per_s=1e9, n_ctx=256)
    with pytest.raises(ToolError, match="no variant of .* fits beside it into 31.5 MB"):
        make_draft(tiny(n_layer=1), tmp_path / "draft.gguf", place, lambda variant: None)
    assert list(tmp_path.iterdir()) == []


# models with recurrent state ---------------------------------------------------------------------------------------

HYBRIDS = ("lfm2", "lfm2moe", "qwen35", "granitehybrid", "nemotron_h", "falcon_h1", "mamba2")


@pytest.mark.parametrize("layer", [0, 1, 3])
@pytest.mark.parametrize("architecture", HYBRIDS)
def test_a_silenced_layer_of_a_hybrid_is_as_good_as_dropped(
    tiny: Callable[..., Path], tmp_path: Path, architecture: str, layer: int
) -> None:
    attention = [t.name for t in read_header(tiny(architecture)).tensors if "attn_output" in t.name]
    if attention == [f"blk.{layer}.attn_output.weight"]:
        pytest.skip("without any attention it is no hybrid")
    if architecture == "lfm2moe" and layer == 0:
        pytest.skip("its first layer is dense, by number")
    whole, tried, dropped = tiny(architecture), tmp_path / "tried.gguf", tmp_path / "dropped.gguf"
    tried.write_bytes(whole.read_bytes())
    drop_layers(whole, dropped, [layer])
    with silenced(read_header(tried), layer):
        assert differ(tried, dropped) < CLOSE < differ(tried, whole)
    assert tried.read_bytes() == whole.read_bytes()


def test_blocks_that_predict_further_tokens_are_dropped_too(tiny: Callable[..., Path], tmp_path: Path) -> None:
    for name, model in {"plain": tiny("qwen35"), "longer": tiny("qwen35", n_nextn=1)}.items():
        drop_layers(model, tmp_path / name, [1])
    assert [read_header(tmp_path / name).number("block_count") for name in ("plain", "longer")] == [3, 3]
    assert differ(tmp_path / "plain", tmp_path / "longer") < CLOSE


@pytest.mark.parametrize("architecture", HYBRIDS)
def test_a_hybrid_drafts_for_itself(tiny: Callable[..., Path], architecture: str) -> None:
    verifier = tiny(architecture)
    texts, _ = write_texts(verifier, None)
    same, poor = measure(verifier, texts), measure(tiny(architecture, noise=0.1), texts)
    assert same.agreement > 0.98 > poor.agreement
    assert same.tokens[-1] > poor.tokens[-1] >= 1


@pytest.mark.parametrize("architecture", ["lfm2", "qwen35", "granitehybrid", "mamba2"])
def test_a_draft_is_made_of_a_hybrid(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    verifier, costs, seen = tiny(architecture, type_name="F32"), PassCost(), list[Variant]()
    texts, _ = write_texts(verifier, None)
    for n_rows in (1, 2, 4, 8, 16, 64):
        costs.add(n_rows, 0.01)
    monkeypatch.setattr("cadcpp.models.make_draft.write_texts", lambda *_, **place: (texts[:2], costs))
    monkeypatch.setattr("cadcpp.models.make_draft.measure", lambda *_: at_once(8))
    place = Place(ram=8 << 30, disk_bytes_per_s=1e9, n_ctx=256)
    make_draft(verifier, tmp_path / "draft.gguf", place, seen.append)
    assert {*"Q2_K Q3_K_M Q4_K_M Q8_0".split()} < {variant.name for variant in seen} and less_layers(seen)
    draft = read_header(tmp_path / "draft.gguf")
    assert draft.architecture == read_header(verifier).architecture and draft.n_bytes < verifier.stat().st_size
    check_pair(read_header(verifier), draft)
