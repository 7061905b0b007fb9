"""Studies of the bench on tiny models: that they come to their end, and that what they note can be read again."""

import json
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from bench.baselines import own_defaults
from bench.matrix import models
from bench.matrix.systems import LOOKUP, OPTIONS, PLAIN, SAME, Task, command, parse
from bench.measure import record
from bench.studies import (
    acceptance,
    branches,
    dropin_memory,
    exactness,
    expert_routes,
    mixture_of_experts,
    round_profile,
    soak,
)
from bench.studies.replay import replays
from bench.studies.soak_request import Reply, Request
from cadcpp.cli import main as cli
from cadcpp.config import SamplingConfig
from cadcpp.residency import states
from cadcpp.residency.kernel_mode import KernelMode
from cadcpp.tree.granularity import Granularity

CHAT = "{% for message in messages %}{{ message.content }}\n{% endfor %}"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    return tmp_path


@pytest.fixture
def pair(tiny: Callable[..., Path]) -> tuple[Path, Path]:
    return tiny(chat_template=CHAT), tiny(noise=0.05)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_acceptance_notes_what_was_measured_and_with_which_settings(pair: tuple[Path, Path], results: Path) -> None:
    cases = acceptance.measure(*pair, rows=4, n=8, sampling="T 1, k 50, coupled")
    noted = lines(results / "acceptance.jsonl")
    assert [line["case"] for line in noted] == list(cases)
    for line in noted:
        settings = {"verifier": pair[0].name, "draft": pair[1].name, "rows": 4, "n": 8}
        settings |= {"sampling": "T 1, k 50, coupled"}
        assert settings.items() <= line.items()
        assert line["emitted"] == cases[line["case"]].stats.emitted
        assert line["passes"] / line["emitted"] < cases[line["case"]].touched


@pytest.mark.parametrize("kind", ["upstream", "lookup", "ngram"])
def test_what_a_class_holds_is_measured_with_each_of_them(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(record, "demo_verifier", lambda: tiny("llama", type_name="Q8_0"))
    found = dropin_memory.measure(kind)
    assert found["answered_bytes"] > found["own_bytes"] > 0


def test_a_hybrid_draft_is_measured_with_branches_and_without(
    tiny: Callable[..., Path], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "_OF_DRAFT", 4)  # a tiny model's states are not small beside its weights
    found = branches.compare(tiny(chat_template=CHAT), tiny("lfm2", noise=0.05), 8, 16, "greedy", ["chat"])
    chain, several = (found[name]["chat"].stats for name in branches.STATES)
    assert chain.emitted == several.emitted and chain.draft_decodes > several.draft_decodes


def test_the_table_of_acceptance_has_a_column_per_text(
    pair: tuple[Path, Path], results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--rows", "4", "--tokens", "8", "--case", "chat", "code", "--sampling", "greedy", "T 0.8, coupled"]
    options += ["--seed", "1", "2"]
    argv = ["acceptance", *options, "--verifier", str(pair[0]), "--draft", str(pair[1])]
    monkeypatch.setattr("sys.argv", argv)
    acceptance.main()
    head, *rows, fresh = capsys.readouterr().out.splitlines()
    assert head.split()[3:] == ["chat", "code", "mean"] and fresh.startswith("fresh")
    assert [row.split(":")[0] for row in rows] == ["4"] * 3 and all(row.count("(") == 3 for row in rows)


def test_a_round_s_time_is_noted_by_what_it_went_into(
    pair: tuple[Path, Path], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["round_profile", "--rows", "4", "--rounds", "3", "--verifier", str(pair[0]), "--draft", str(pair[1])]
    monkeypatch.setattr("sys.argv", argv)
    round_profile.main()
    (noted,) = lines(results / "profile.jsonl")
    assert noted["rows"] == 4 and set(noted["seconds"]) == {*round_profile.KINDS, "Python", "round"}


def test_the_soak_notes_requests_texts_that_differ_and_what_is_held(
    pair: tuple[Path, Path], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "demo_verifier", lambda: pair[0])
    monkeypatch.setattr(record, "demo_draft", lambda: pair[1])
    monkeypatch.setattr(soak, "in_template", lambda case: "Once upon a time")
    run = soak.Soak(random.Random(1), 0.0, soak.subject(mixture=False))
    run.session("draft")
    run.sample = [("draft", Request([5, 6], SamplingConfig(temperature=0.0), 2), Reply([-1, -1]))]
    run.compare()
    request, held, different, after = lines(results / "soak.jsonl")
    assert request["mode"] == "draft" and held["between"]["rss"] > 0 and after["between"]["rss"] > 0
    assert different["different"]["request"]["sampling"]["temperature"] == 0.0


def test_baselines_write_the_same_text_and_tell_the_same_figures(tiny: Callable[..., Path]) -> None:
    model, figures = tiny(type_name="Q8_0"), []
    for kind in (PLAIN, SAME, LOOKUP, "off"):
        task = Task(prompt="the cat and the", n=6, ctx=256, ram=None, draft=model, verifier=model)
        argv = command(kind, task)
        figures.append(parse(subprocess.run(argv, capture_output=True, text=True, check=True, cwd=record.ROOT)))
    assert [found["tokens"] for found in figures] == [figures[0]["tokens"]] * 4 and figures[0]["n"] == 6
    for found in figures:
        assert {"s_per_token", "first_s", "load_s", "cpu_per_token", "read_per_token", "read_per_pass"} <= found.keys()


@pytest.mark.parametrize("kind", [*OPTIONS, "rows-8"])
def test_what_a_cell_asks_of_generate_it_understands(tiny: Callable[..., Path], kind: str) -> None:
    task = Task(prompt="a", n=6, ctx=256, ram=900, draft=tiny(), verifier=tiny(), sampling="top-k")
    generate = cli.get_command(click.Context(cli), "generate")
    assert generate is not None
    generate.make_context("generate", command(kind, task)[4:])  # raises UsageError


@pytest.mark.parametrize(
    ("announced", "works", "kept"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_units_that_a_machine_only_announces_are_kept_out_of_the_baseline(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, announced: bool, works: bool, kept: bool
) -> None:
    (info := tmp_path / "cpuinfo").write_text("flags : avx2" + " amx_int8" * announced)
    monkeypatch.setattr(own_defaults, "_CPUINFO", info)
    ended = subprocess.CompletedProcess[bytes]([], 0 if works else -11)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    params = own_defaults.model_params(tiny(type_name="Q4_0"))
    assert params.use_extra_bufts is not kept and bool(params.tensor_buft_overrides) is kept


def test_this_machine_survives_what_it_announces_or_says_so(tiny: Callable[..., Path]) -> None:
    command = [sys.executable, "-m", "bench.baselines.own_defaults", str(tiny(type_name="Q4_0"))]
    done = subprocess.run(command, capture_output=True, cwd=record.ROOT, check=False)
    assert done.returncode <= 0  # of a fault in the script it would be 1


def test_an_exact_number_of_rows_is_tried_again_on_trees(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exactness, "replays", lambda made, _found, **_: made.n_experts == 0)
    monkeypatch.setattr("sys.argv", ["exactness", "q4_0"])
    with pytest.raises(SystemExit, match="True"):
        exactness.main()
    dense, _, mixture, *_ = capsys.readouterr().out.splitlines()[-1].split(" | ")[1:]
    assert "WRONG" in mixture and "WRONG" not in dense


@pytest.mark.skipif(platform.machine() != "x86_64", reason="one row alone is computed alike elsewhere")
def test_control_trees_of_f16_do_not_replay_row_by_row() -> None:
    dense, _mixture = exactness.sketches(kind=1)
    modes = [KernelMode(granularity=Granularity(least)) for least in (1, 2)]
    found = [replays(dense, mode, n_threads=1) for mode in modes]
    assert found == [False, True]


@pytest.mark.parametrize("kind", ["f16", "q4_K"])
def test_the_small_study_finds_what_the_large_one_does(kind: str) -> None:
    assert list(exactness.rows([kind], small=True)) == list(exactness.rows([kind]))


def test_routings_are_recorded_a_token_at_a_time_and_replayed(tiny: Callable[..., Path], results: Path) -> None:
    model = tiny("mixture", n_layer=4, n_embd=256, n_ff=512, n_experts=16, n_used=2)
    prompts = ["It was a dark and stormy night.", "Nothing else was known of it."]
    texts = expert_routes.routing(model, prompts, 20)
    assert [text.shape for text in texts] == [(19, 4, 2)] * 2 and len(np.unique(texts[0])) > 8
    again = expert_routes.routing(model, prompts[::-1], 20, share=0.3)
    assert all((one == other).all() for one, other in zip(texts, again[::-1], strict=True))
    reads = expert_routes.compare(np.concatenate(texts), 16, 0.5)
    assert reads["optimum"] <= min(reads.values()) and reads["own"] < 8
    figures = expert_routes.figures(texts, 16)
    assert 2 <= figures["used"] <= 16 and 0 < figures["lag 1, first layer"] < 1


def test_the_study_of_mixtures_goes_on_where_it_was_ended(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every cell once before any is measured again, no run twice, and one that failed again."""
    model, asked = tiny("mixture"), list[tuple[int, list[str]]]()
    monkeypatch.setattr(mixture_of_experts, "why_not", lambda: None)
    monkeypatch.setattr(mixture_of_experts, "demo_mixture", lambda folder: model)
    monkeypatch.setattr(models, "make", lambda path: None)

    def measure(limits: Any, argv: list[str], disk: Path) -> dict[str, Any]:
        asked.append((limits.disk_bytes_per_s or 0, argv))
        if len(asked) == 2:
            return {"error": "the disk fell off"}
        if len(asked) in (4, 9):
            clock[0] += 3600.0
        return {"s_per_token": 0.5 * len(asked), "read_per_token": 10**6, "seconds": 1.0, "peak_bytes": 1 << 20}

    clock = [0.0]
    monkeypatch.setattr(mixture_of_experts, "measure", measure)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    output = ["-o", str(tmp_path / "mixture.jsonl")]
    monkeypatch.setattr("sys.argv", ["mixture", *output, "--runs", "2", "--share", "50", "--disk", "0", "400"])
    told = list[str]()
    for _ in range(4):
        mixture_of_experts.main()
        told.append(capsys.readouterr().out)
    assert ["runs are left" in text for text in told] == [True, True, False, False]
    assert len(asked) == 6 * 2 + 1 and told[-1].count("| 2 |") == 6
    assert asked[4][1][2:] == asked[1][1][2:] and "the disk fell off" in told[0]
    assert [disk >> 20 for disk, _ in asked[:6]] == [0, 0, 0, 400, 0, 400]
    states = {argv[1] for _, argv in asked}
    assert len(states) == len(asked)  # nobody learns from the run before
    generate = cli.get_command(click.Context(cli), "generate")
    assert generate is not None
    for _, argv in asked:
        if "cadcpp" in argv:
            generate.make_context("generate", argv[6:])  # raises UsageError
