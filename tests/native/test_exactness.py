"""Kernels that keep the text: found by trying, kept in mind, and used wherever a verifier computes."""

import json
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from cadcpp import config as configuration
from cadcpp import errors
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.gguf.header import read_header
from cadcpp.gguf.sketch import Sketch, sketch
from cadcpp.modes import Speculative
from cadcpp.native import exactness
from cadcpp.native.exactness import agrees, find_granularity
from cadcpp.native.model import Model
from cadcpp.native.repacking import has_kernels, repackable
from cadcpp.native.row_cost import relative_cost
from cadcpp.residency.context_shape import verifier_shape
from cadcpp.residency.kernel_mode import KernelMode, KernelModes
from cadcpp.runtime import kernel_choice, machine_file
from cadcpp.runtime.kernel_choice import foreseen_modes, kernel_modes
from cadcpp.runtime.session import Session
from cadcpp.system.cpu import Threads
from cadcpp.telemetry.stats import Stats
from cadcpp.tree.granularity import Granularity
from cadcpp.tree.limits import TreeLimits
from cadcpp.verify.text_state import TextState
from cadcpp.verify.verifier import Verifier
from tests.support.vocab import random_text

SIZES = {"n_embd": 256, "n_ff": 512}
HEADS = {"n_head": 4, "n_head_kv": 2}
DRAWN = SamplingConfig(temperature=0.8, seed=7, sampler="llama")
GREEDY = SamplingConfig(temperature=0.0)
CASES = [("mixture", "Q8_0"), ("llama", "F16"), ("llama", "IQ4_NL"), ("llama", "Q4_K"), ("llama", "Q4_0")]


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where verdicts are kept; empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "cadcpp" / "kernels.json"


def tiny_of(tiny: Callable[..., Path], architecture: str, kind: str) -> Path:
    return tiny(architecture, type_name=kind, **SIZES, **(HEADS if architecture == "llama" else {}))


# what is tried --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "kind"), CASES)
@pytest.mark.parametrize("repacked", [False, True])
def test_some_number_of_rows_is_exact(tiny: Callable[..., Path], architecture: str, kind: str, repacked: bool) -> None:
    made = sketch(read_header(tiny_of(tiny, architecture, kind)))
    assert find_granularity(made, KernelMode(repacked=repacked), n_threads=1) is not None


@pytest.mark.parametrize(
    "architecture",
    [
        "mixture",  # whose router is computed with other kernels from two rows on, or four
        pytest.param("llama", marks=pytest.mark.skipif(platform.machine() != "aarch64", reason="is exact here")),
    ],
)
def test_control_rows_one_by_one_are_not_enough(tiny: Callable[..., Path], tmp_path: Path, architecture: str) -> None:
    sketch(read_header(tiny_of(tiny, architecture, "Q8_0"))).write(path := tmp_path / "sketch.gguf")
    model = Model(path, vocabulary=False)
    try:
        whole = KernelMode(granularity=Granularity(16, 16, 16))
        assert not agrees(model, KernelMode(), 1) and agrees(model, whole, 1)
    finally:
        model.close()


def test_a_sketch_has_the_types_and_the_odd_ends_of_its_model(tiny: Callable[..., Path]) -> None:
    path = tiny("mixture", n_embd=320, n_ff=1312, n_experts=12, n_used=2)
    made, kinds = sketch(read_header(path)), {t.name: t.type for t in read_header(path).tensors}
    assert (made.n_embd % 256, made.n_ff % 256) == (320 % 256, 1312 % 256)
    assert made.n_ff >= 2 * 256  # one block of a K-quant would not tell in which order kernels add blocks up
    assert (made.n_experts % 8, made.n_used, made.head_size) == (12 % 8, 2, 32)
    assert (
        made.expert_inner == (kinds["blk.0.ffn_up_exps.weight"],) and made.router == kinds["blk.0.ffn_gate_inp.weight"]
    )


F16 = 1


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("per_layer_model_proj.weight", (256, 512, 1, 1)),  # of Gemma's that have embeddings in every layer
        ("altup_proj.weight", (256, 256, 3, 1)),
        ("blk.0.attn_k_b.weight", (128, 256, 4, 1)),  # of attention with latent keys
    ],
)
@pytest.mark.parametrize("architecture", ["llama", "mixture"])
def test_a_sketch_has_all_that_rows_are_multiplied_with(
    tiny: Callable[..., Path], architecture: str, name: str, shape: tuple[int, ...]
) -> None:
    """Floats among quantized matrices are what other numbers of rows have other kernels for."""
    header = read_header(tiny_of(tiny, architecture, "Q8_0"))
    plain = sketch(header)
    odd = replace(header, tensors=(*header.tensors, replace(header.tensors[0], name=name, shape=shape, type=F16)))
    assert F16 in sketch(odd).outer and F16 not in plain.outer
    assert (sketch(odd).expert_inner, sketch(odd).expert_outer) == (plain.expert_inner, plain.expert_outer)


def test_repacking_is_of_matrices_only(tiny: Callable[..., Path]) -> None:
    names = repackable(read_header(tiny_of(tiny, "llama", "Q4_0")))
    assert names and all("_norm" not in name and "_embd" not in name for name in names)


# what is kept in mind -------------------------------------------------------------------------------


def test_a_verdict_is_kept_and_used(tiny: Callable[..., Path], memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = read_header(tiny_of(tiny, "llama", "F16"))
    found = kernel_modes(SessionConfig(n_threads=2), header)
    monkeypatch.setattr(kernel_choice, "find_granularity", lambda *_, **__: pytest.fail("tried again"))
    assert kernel_modes(SessionConfig(n_threads=2), header) == found
    assert json.loads(memory.read_text())


def test_modes_are_those_of_one_number_of_threads(tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Which depends on what else runs."""
    seen = list[int | None]()

    def modes(config: SessionConfig, *_: object) -> KernelModes:
        seen.append(config.n_threads)
        return KernelModes()

    monkeypatch.setattr(kernel_choice, "kernel_modes", modes)
    monkeypatch.setattr(configuration, "choose_threads", lambda **_: Threads(len(seen) + 1, "as the test says"))
    foreseen_modes(SessionConfig(cache_values="auto"), read_header(tiny("llama")))
    assert seen == [1, 1]


@pytest.mark.parametrize("content", ["", "[]", "nonsense", "{}"])
def test_what_is_kept_may_be_damaged(tiny: Callable[..., Path], memory: Path, content: str) -> None:
    memory.parent.mkdir()
    memory.write_text(content)
    assert kernel_modes(SessionConfig(n_threads=2), read_header(tiny_of(tiny, "llama", "Q8_0"))).streamed.exact


@pytest.mark.parametrize("setting", ["threads", "library", "types", "values of the cache"])
def test_it_is_tried_again_when_anything_changes(
    tiny: Callable[..., Path], memory: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    made = sketch(read_header(tiny_of(tiny, "llama", "F16")))
    tried = list[Sketch]()
    monkeypatch.setattr(kernel_choice, "find_granularity", lambda made, *_, **__: tried.append(made))
    kernel_choice._granularity(made, 2, KernelMode())
    kernel_choice._granularity(made, 2, KernelMode())
    assert len(tried) == 1
    if setting == "library":
        monkeypatch.setattr(machine_file, "library_files", list)
    other = replace(made, output=8) if setting == "types" else made
    mode = KernelMode(f16_values=setting == "values of the cache")
    kernel_choice._granularity(other, 1 if setting == "threads" else 2, mode)
    assert len(tried) == 2


def test_weights_that_stay_in_memory_are_repacked_and_drafted_for_where_exact_passes_are_cheap(
    tiny: Callable[..., Path], memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = read_header(tiny_of(tiny, "llama", "Q4_0"))

    def chosen(plain: Granularity | None, repacked: Granularity | None, cost: float = 1.0) -> tuple[bool, bool, bool]:
        found = {False: plain, True: repacked}
        monkeypatch.setattr(kernel_choice, "_granularity", lambda _made, _n, mode: found[mode.repacked])
        monkeypatch.setattr(kernel_choice, "relative_cost", lambda *_, **__: cost)
        memory.unlink(missing_ok=True)
        mode = kernel_modes(SessionConfig(n_threads=2), header).kept
        return mode.repacked, mode.drafts, mode.exact

    assert chosen(Granularity(2), Granularity()) == (True, True, True)
    assert chosen(Granularity(), Granularity()) == (True, True, True)
    assert chosen(Granularity(), Granularity(4, 4), cost=1.2) == (True, True, True)
    assert chosen(Granularity(), Granularity(4, 4), cost=2.9) == (True, False, True)
    assert chosen(Granularity(), None) == (False, True, True)
    assert chosen(None, None)[2] is False


def test_what_a_row_costs_is_timed_once(
    tiny: Callable[..., Path], memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second opinion might be another one, and with it another text."""
    costs = iter([1.2])
    monkeypatch.setattr(kernel_choice, "relative_cost", lambda *_, **__: next(costs))
    made = sketch(read_header(tiny_of(tiny, "llama", "Q4_0")))
    assert [kernel_choice._cost(made, 4, 2) for _ in range(2)] == [1.2, 1.2]


def test_a_row_s_cost_is_of_weights_larger_than_caches(tiny: Callable[..., Path]) -> None:
    made = sketch(read_header(tiny_of(tiny, "mixture", "Q4_0")))
    large = made.enlarged(64 << 20)
    assert (large.n_embd % 256, large.n_ff % 256) == (made.n_embd % 256, made.n_ff % 256)
    n_weights = 3 * large.n_layer * large.n_embd * large.n_ff * large.n_experts
    assert 0.7 < n_weights * 18 / 32 / (64 << 20) < 1.4
    assert relative_cost(made, 4, n_threads=1) > 0


@pytest.fixture
def dear(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which rows cost much, and repacked weights need four of them."""
    monkeypatch.setattr(
        kernel_choice, "_granularity", lambda _made, _n, repacked: Granularity(4, 4) if repacked else Granularity()
    )
    monkeypatch.setattr(kernel_choice, "relative_cost", lambda *_, **__: 2.9)


@pytest.mark.usefixtures("dear")
def test_where_rows_are_computed_alone_a_draft_is_neither_planned_nor_loaded_and_that_is_said(
    tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path, stats = tiny_of(tiny, "llama", "Q4_0"), Stats()
    with Session(path, tiny(), SessionConfig(n_ctx=64)) as session:
        assert session.plan.draft == 0 and session.plan.kernels.name.startswith("repacked, one row at a time: ")
        for _ in session.stream([5, 6, 7], GREEDY, 6, stats=stats):
            pass
    assert stats.exact and not stats.inexact_because and stats.drafted == 0
    (said,) = [record.getMessage() for record in caplog.records if record.name == "cadcpp.runtime.assembly"]
    assert said.startswith("cadcpp: nothing is drafted: ") and "2.9 times" in said


@pytest.mark.usefixtures("dear")
@pytest.mark.parametrize("mode", ["auto", "off"])
def test_where_nobody_asked_for_drafts_nothing_is_said_of_them(
    tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture, mode: Speculative
) -> None:
    with Session(tiny_of(tiny, "llama", "Q4_0"), None, SessionConfig(n_ctx=64, speculative=mode)):
        assert not [record for record in caplog.records if record.name == "cadcpp.runtime.assembly"]


def test_repacked_weights_have_rows_that_suit_those_which_never_are(
    tiny: Callable[..., Path], memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as embeddings that the model ends with."""
    found = {False: Granularity(2, 2, 16), True: Granularity()}
    monkeypatch.setattr(kernel_choice, "_granularity", lambda _made, _n, mode: found[mode.repacked])
    monkeypatch.setattr(kernel_choice, "relative_cost", lambda *_, **__: 1.0)
    kept = kernel_modes(SessionConfig(n_threads=2), read_header(tiny_of(tiny, "llama", "Q4_0"))).kept
    assert kept.repacked and kept.granularity == Granularity(2, 2, 16)


def test_weights_at_the_end_are_repacked_though_embeddings_of_their_shape_are_not(tiny: Callable[..., Path]) -> None:
    header = read_header(tiny_of(tiny, "llama", "Q4_0"))
    end = next(tensor for tensor in header.tensors if tensor.name == "output.weight")
    assert ("output.weight" in repackable(header)) == has_kernels(end.type, end.shape[:2])


# what is said ---------------------------------------------------------------------------------------


@pytest.fixture
def inexact(monkeypatch: pytest.MonkeyPatch, memory: Path) -> None:
    """A machine on which no number of rows is exact."""
    monkeypatch.setattr(exactness, "agrees", lambda *_: False)


@pytest.mark.usefixtures("inexact")
def test_what_is_not_exact_is_said(tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    stats = Stats()
    with Session(tiny_of(tiny, "llama", "Q8_0"), None, SessionConfig(n_ctx=64)) as session:
        for _ in session.stream([5, 6, 7], GREEDY, 2, stats=stats):
            pass
        assert not session.plan.kernels.exact and session.plan.to_dict()["exact"] is False
    assert not stats.exact and "rounds every row alike" in stats.inexact_because
    said = [record.getMessage() for record in caplog.records if record.name == "cadcpp.runtime.assembly"]
    assert said == [f"cadcpp: the text may differ from plain decoding's: {stats.inexact_because}"]


@pytest.mark.usefixtures("inexact")
def test_strict_refuses(tiny: Callable[..., Path]) -> None:
    with pytest.raises(errors.ConfigError, match="exact strict"):
        Session(tiny_of(tiny, "llama", "Q8_0"), None, SessionConfig(n_ctx=64, exact="strict"))


def test_off_claims_nothing(tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    with Session(tiny_of(tiny, "llama", "Q4_0"), None, SessionConfig(n_ctx=64, exact="off")) as session:
        assert not session.plan.kernels.exact and session.plan.kernels.repacked
        assert not [record for record in caplog.records if record.name == "cadcpp.runtime.assembly"]


# the text -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where verdicts are kept for all texts."""
    return tmp_path_factory.mktemp("verdicts")


@pytest.fixture
def drafting(monkeypatch: pytest.MonkeyPatch, verdicts: Path) -> None:
    """Passes are filled up and drafted for, whatever rows cost here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(verdicts))
    monkeypatch.setattr(kernel_choice, "relative_cost", lambda *_, **__: 1.0)


def write(
    path: Path,
    draft: Path | None,
    mode: Speculative,
    sampling: SamplingConfig,
    n_prompts: int,
    n: int,
    exact: bool = True,
) -> list[list[int]]:
    tree = TreeLimits(max_size=24)
    config = SessionConfig(
        n_ctx=512, n_threads=1, speculative=mode, fallback="none", tree=tree, exact="strict" if exact else "off"
    )
    with Session(path, draft, config) as session:
        prompts = [random_text(seed, 3 + 13 * seed) for seed in range(n_prompts)]
        return [[t for chunk in session.stream(p, sampling, n) for t in chunk.tokens] for p in prompts]


@pytest.fixture(params=CASES, ids="-".join)
def verifier(drafting: None, request: pytest.FixtureRequest, tiny: Callable[..., Path]) -> Path:
    return tiny_of(tiny, *request.param)


@pytest.fixture
def draft(tiny: Callable[..., Path]) -> Path:
    return tiny("llama", noise=0.02, type_name="Q8_0", **SIZES, **HEADS)


@pytest.mark.parametrize(("n_prompts", "n"), [(2, 60), pytest.param(6, 300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_the_text_is_that_of_plain_decoding(
    verifier: Path, draft: Path, sampling: SamplingConfig, n_prompts: int, n: int
) -> None:
    plain = write(verifier, None, "off", sampling, n_prompts, n)
    assert write(verifier, draft, "draft", sampling, n_prompts, n) == plain
    assert write(verifier, None, "ngram", sampling, n_prompts, n) == plain


def test_control_rows_one_by_one_change_a_text(tiny: Callable[..., Path], draft: Path) -> None:
    """Of one of these types at least; which one that is depends on the processor."""

    def differs(kind: str) -> bool:
        verifier = tiny_of(tiny, "llama", kind)
        plain = write(verifier, None, "off", DRAWN, 3, 150, exact=False)
        return write(verifier, draft, "draft", DRAWN, 3, 150, exact=False) != plain

    assert any(differs(kind) for kind in ("BF16", "Q8_0", "Q4_1"))


def test_the_context_is_filled_to_its_last_cell(verifier: Path, draft: Path) -> None:
    config = SessionConfig(n_ctx=256, n_threads=1, fallback="none", exact="strict", tree=TreeLimits(max_size=24))
    texts = []
    for chosen in (replace(config, speculative="off"), replace(config, speculative="draft")):
        with Session(verifier, draft, chosen) as session:
            texts.append([t for chunk in session.stream(random_text(1, 200), DRAWN, 100) for t in chunk.tokens])
    assert texts[0] == texts[1] and len(texts[0]) == 56


def test_a_tree_has_no_more_leaves_than_there_are_sequences() -> None:
    shape = verifier_shape(1024, 256, kernels=KernelMode(granularity=Granularity(2, 2, 16)))
    verifier = Verifier(cast(Any, SimpleNamespace(shape=shape)))
    assert verifier.room(TextState([1])) - 1 <= shape.n_seq < 255


@pytest.mark.usefixtures("drafting")
def test_rows_that_fill_up_leave_nothing_behind(tiny: Callable[..., Path]) -> None:
    """Also if a pass is ended: the next one takes the same cells."""
    config = SessionConfig(n_ctx=64, n_threads=1, speculative="off", exact="strict")
    with Session(tiny_of(tiny, "llama", "F16"), None, config) as session:
        context = session.engine.verifier.context
        assert context.shape.granularity.padding > 0
        for _ in session.stream([5, 6, 7], GREEDY, 8):
            for seq in range(context.shape.n_seq, context.shape.sequences):
                assert np.all(context.n_held(seq) == 0)
