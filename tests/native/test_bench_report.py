"""The bench's report and comparison, on records that were made up."""

import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from bench.matrix import models
from bench.matrix.cell import MEMORY, Cell, Place
from bench.matrix.grid import AS_IS, DRAWN, MEDIUM, REPLY, Section, all_cells, cell, sections
from bench.matrix.runner import measure, run, tell_left_out
from bench.matrix.systems import OURS, PLAIN, SAME, digest, is_steady, parse
from bench.measure.energy import rapl, watts_of
from bench.measure.machine_speed import machine_speed
from bench.measure.neighbours import BUSY, TWIN, beside
from bench.measure.record import ROOT
from bench.measure.results import Record, Run, differing, gather, load
from bench.report import build
from bench.report.compare import exact_changes, timed_changes
from bench.report.goals import Goal, best_fixed, goals
from bench.report.speed import headline
from bench.report.statistics import growth, over_others, ratio
from bench.run import MINUTES
from bench.studies import fixed_sizes, weight_types
from cadcpp.models.demo import demo_names
from cadcpp.runtime.generation_record import GenerationRecord
from cadcpp.runtime.session import Chunk

TEXT = [5, 6, 7, 8]


def line(found: Cell, seconds: float, tokens: list[int] = TEXT, **more: Any) -> Record:
    counts = {"pass": 2.0, "passes": 2, "rows": 16, "accepted": 2, "draft_decodes": 6}
    counts["streamed_bytes_per_pass"] = 500_000_000
    text = {"n": len(tokens), "text": digest(tokens), "tokens": tokens}
    figures = {"s_per_token": seconds, "seconds": 9.0, "cpu_per_token": 0.3, "counts": counts}
    figures |= {"read_per_token": 250e6, "read_per_pass": 500e6}
    settings = {"id": found.id, "turn": 0, **asdict(found), "place": found.place.key, "steady": found.steady}
    return {**settings, **text, **figures, **more}


def run_of(*lines: Record, **settings: Any) -> Run:
    return gather([{"run": {"commit": "abc", **settings}}, *lines])


def row_of(text: str, id: str) -> str:
    return next(row for row in text.splitlines() if f"`{id}`" in row)


OURS_CHAT, PLAIN_CHAT, SAME_CHAT = (cell(AS_IS, "chat", kind) for kind in (OURS, PLAIN, SAME))
STEADY = cell(MEMORY, "chat", "rows-8")


def test_an_id_names_one_cell_and_the_quick_run_is_a_part_of_the_whole() -> None:
    whole = {c.id: c for c in all_cells()}
    for quick in (False, True):
        for section in sections(quick):
            assert {c.id: c.n for c in section.cells} == {c.id: whole[c.id].n for c in section.cells}
    assert sum(len(s.cells) for s in sections(True)) < len(whole) / 3


def test_the_sections_fit_into_an_hour() -> None:
    assert sum(section.seconds for section in sections()) <= 60 * MINUTES


@pytest.mark.parametrize("place", [MEMORY, AS_IS, MEDIUM])
def test_what_the_cost_model_is_compared_with_has_its_length(place: Place) -> None:
    """Costs of the first tokens are not those of a reply: a mean over other tokens compares nothing."""
    swept = [c for s in sections() if s.key in ("sweep", "ablation") for c in s.cells if c.place == place]
    assert {c.n for c in swept if c.kind not in ("rows-1", "without-tree", PLAIN)} == {REPLY}


def test_the_cost_model_is_compared_with_the_best_size_on_the_same_texts() -> None:
    """A size that was tried on one text only is not compared with a mean over two."""
    ours = [line(cell(MEMORY, case, OURS), s) for case, s in {"chat": 0.1, "code": 0.4}.items()]
    sizes = [line(cell(MEMORY, "chat", f"rows-{n}"), s) for n, s in {2: 0.2, 4: 0.09, 8: 0.3, 16: 0.4}.items()]
    assert best_fixed(run_of(*ours, *sizes), MEMORY) == pytest.approx(0.9)


def test_a_row_has_the_median_with_its_spread_and_the_ratio_to_plain() -> None:
    run = run_of(
        line(SAME_CHAT, 0.9), line(PLAIN_CHAT, 0.9), line(OURS_CHAT, 0.1), line(OURS_CHAT, 0.2), line(OURS_CHAT, 0.3)
    )
    row = row_of(build.render(run)[0], OURS_CHAT.id)
    assert "| 0.200 ±50% | 4.5x |" in row and row.count("same") == 1


def test_the_rival_is_the_faster_of_llama_cpps_own() -> None:
    others = [line(cell(AS_IS, "chat", kind), s) for kind, s in {"lookup": 0.8, "chain8": 0.4}.items()]
    run = run_of(line(PLAIN_CHAT, 1.0), line(OURS_CHAT, 0.1), *others)
    assert ratio(run, OURS_CHAT) == pytest.approx(10)
    assert over_others(run, OURS_CHAT) == pytest.approx(4)
    assert over_others(run_of(line(PLAIN_CHAT, 1.0), line(OURS_CHAT, 0.1)), OURS_CHAT) is None


def test_a_text_that_differs_is_shown_loudly() -> None:
    run = run_of(line(SAME_CHAT, 0.9), line(OURS_CHAT, 0.1, [5, 6, 9, 8, 1]))
    assert differing(run) == {SAME_CHAT.id: "", OURS_CHAT.id: "from token 2 on"}
    text, _ = build.render(run)
    assert "**1 OF 2 TEXTS DIFFER FROM PLAIN DECODING:**" in text and "**DIFFERS from token 2 on**" in text
    assert next(goal for goal in goals(run) if "whose text" in goal.text).reached is False


def test_llama_cpp_at_its_own_defaults_is_not_what_texts_are_compared_with() -> None:
    run = run_of(line(SAME_CHAT, 0.9), line(PLAIN_CHAT, 0.5, [5, 6, 9, 8, 1]), line(OURS_CHAT, 0.1))
    assert differing(run) == {SAME_CHAT.id: "", PLAIN_CHAT.id: "from token 2 on", OURS_CHAT.id: ""}
    assert next(goal for goal in goals(run) if "whose text" in goal.text).reached
    assert ratio(run, OURS_CHAT) == pytest.approx(5)


def test_weight_types_are_compared_with_llama_cpp_at_its_own_defaults() -> None:
    """Multiples of plain decoding by text; a prompt by the time between loading and the first token."""
    seconds = {PLAIN: 0.1, "off": 0.125, OURS: 0.05}
    lines = [line(cell(MEMORY, "chat", kind, size="Q4_0"), s) for kind, s in seconds.items()]
    first: dict[str, Record] = {"first-plain": {"first_s": 5.0, "load_s": 1.0}, "first": {"prompt_s": 5.0}}
    lines += [line(cell(MEMORY, "long", kind, 1, size="Q4_0"), 0.0, **found) for kind, found in first.items()]
    text = "\n".join(weight_types.report(run_of(*lines)))
    assert "| Q4_0 | 0.80x | 2.0x | 2.0x | 0.80x |" in text


def test_a_longer_text_is_the_same_as_far_as_both_go() -> None:
    run = run_of(line(SAME_CHAT, 0.9, TEXT[:2]), line(OURS_CHAT, 0.1))
    assert differing(run)[OURS_CHAT.id] == ""


def test_texts_are_compared_at_the_same_sampling_only() -> None:
    drawn = [cell(MEMORY, "code", kind, sampling="top-k") for kind in ("off", "stages")]
    run = run_of(line(SAME_CHAT, 0.9), *(line(c, 0.1, [1, 2]) for c in drawn))
    assert not any(differing(run).values()) and set(differing(run)) == {SAME_CHAT.id, *(c.id for c in drawn)}


def test_every_row_has_what_repeats_it_and_missing_parts_are_named() -> None:
    whole = {c.id for c in all_cells()}
    text, charts = build.render(run_of(line(PLAIN_CHAT, 0.9), line(OURS_CHAT, 0.1)))
    assert OURS_CHAT.id in whole
    assert "Not measured in this run: `python -m bench.run staged` does." in text
    assert {chart.name for chart in charts} >= {"report-wall"}
    assert "not measured" in row_of(text, cell(MEDIUM, "chat", OURS).id)


def test_an_empty_run_renders() -> None:
    text, charts = build.render(gather([]))
    assert text.count("Not measured in this run") == len(sections()) and not charts


def test_what_failed_stands_in_the_report() -> None:
    failed = {"id": OURS_CHAT.id, "turn": 0, "error": "too little memory"}
    left = {"id": PLAIN_CHAT.id, "turn": 0, "left_out": "no limit here"}
    text, _ = build.render(run_of(failed, left))
    assert f"- too little memory: `{OURS_CHAT.id}`" in text and "**no limit here**" in row_of(text, PLAIN_CHAT.id)


@pytest.mark.parametrize(("value", "at_least", "reached"), [(1.0, True, True), (0.9, True, False), (0.9, False, True)])
def test_a_goal_that_was_missed_is_said_as_plainly(value: float, at_least: bool, reached: bool) -> None:
    table = build.goals_table([Goal("some goal", value, 1.0, at_least)])
    assert any("**NOT reached**" in row for row in table) is not reached


def test_a_goal_without_figures_is_neither_reached_nor_missed() -> None:
    assert all(goal.reached is None for goal in goals(gather([])))


def test_drawn_texts_are_compared_with_plain_decoding_whose_speed_no_sampler_changes() -> None:
    drawn = cell(AS_IS, "chat", OURS, sampling=DRAWN)
    run = run_of(line(PLAIN_CHAT, 0.9), line(OURS_CHAT, 0.1), line(drawn, 0.15, [1, 2]))
    assert ratio(run, drawn) == pytest.approx(6)
    shown = "\n".join(headline(run))
    assert "chat, temperature 0.8 | 0.150 (6.0x)" in shown and "chat, greedy | 0.100 (9.0x)" in shown


def test_each_is_compared_beside_the_same_neighbour() -> None:
    seconds = {(PLAIN, ""): 0.1, (OURS, ""): 0.1, (PLAIN, BUSY): 0.4, (OURS, BUSY): 0.2}
    lines = [line(cell(MEMORY, "chat", kind, beside=other), s) for (kind, other), s in seconds.items()]
    assert len({record["id"] for record in lines}) == 4
    text, _ = build.render(run_of(*lines))
    assert "| in memory | beside a busy process | 0.400 | 0.200 | 2.0x |" in text
    found = {goal.text: goal.value for goal in goals(run_of(*lines))}
    assert found["in memory, each beside a busy process: x plain llama.cpp"] == pytest.approx(2)


def test_a_neighbour_works_meanwhile_and_not_afterwards(tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    with beside(TWIN, [sys.executable, "-c", f"open({str(sign)!r}, 'a').write('x')"]):
        while not sign.exists() or sign.stat().st_size < 2:  # again and again
            time.sleep(0.01)
    n = sign.stat().st_size
    time.sleep(0.3)
    assert sign.stat().st_size == n
    with beside("", ["no such command"]):
        pass


def test_the_machine_s_speed_is_counted() -> None:
    assert machine_speed(0.05) > 0


def test_growth_compares_the_ends() -> None:
    points = {256.0: (0.1, 0.1, 0.1), 8192.0: (0.4, 0.4, 0.4), 1024.0: (9.0, 9.0, 9.0)}
    assert growth(points, "x").startswith("32 times the x costs 4 times as much (0.1 at 256, 0.4 at 8192; power 0.40")


def test_fixed_sizes_are_compared_where_all_workloads_have_them() -> None:
    """The best on average, the best of each workload, and LLMCad; a size that one workload lacks is left out."""
    kinds = {OURS: (0.2, 0.1), "llmcad": (0.1, 0.1), "rows-8": (0.1, 0.4), "rows-64": (0.4, 0.025)}
    timed = [(kind, *pair) for kind, s in kinds.items() for pair in zip(("chat", "code"), s, strict=True)]
    lines = [line(cell(AS_IS, case, kind), seconds) for kind, case, seconds in timed]
    lines.append(line(cell(AS_IS, "chat", "rows-16"), 0.001))
    text = "\n".join(fixed_sizes.of_place(run_of(*lines), AS_IS))
    assert "| cost model | LLMCad | 8 rows | 64 rows |" in text and "| chat | 0.200 | 0.100 | 0.100 | 0.400 |" in text
    assert "71% of the size that is best on average, 35% of the best size of each workload, 71% of LLMCad" in text
    assert fixed_sizes.of_place(run_of(*lines), MEDIUM) == []


def changes(before: Record, after: Record) -> tuple[list[str], list[str]]:
    a, b = run_of(before), run_of(after)
    exact, timed = exact_changes(a, b), timed_changes(a, b)
    return [f"{c.key} {'worse' if c.worse else 'better'}" for c in exact], [c.key for c in timed]


def counted(**counts: float) -> Record:
    before = line(STEADY, 0.2)
    return before | {"counts": before["counts"] | counts}


def test_runs_that_are_the_same_but_for_noise_show_nothing() -> None:
    assert changes(line(STEADY, 0.200), line(STEADY, 0.204)) == ([], [])


def test_exact_figures_show_whatever_the_clock_says() -> None:
    assert changes(counted(), counted(**{"pass": 1.9})) == (["pass worse"], [])
    assert changes(counted(), counted(rows=17)) == (["rows worse"], [])
    assert changes(counted(), counted(draft_decodes=5)) == (["draft_decodes better"], [])
    assert changes(line(STEADY, 0.2), line(STEADY, 0.2, [5, 6, 7, 9])) == (["text worse"], [])
    assert changes(line(STEADY, 0.2), line(STEADY, 0.2, read_per_pass=550e6)) == (["read_per_pass worse"], [])
    assert changes(line(STEADY, 0.2), line(STEADY, 0.2, read_per_pass=501e6)) == ([], [])


def test_counts_that_hang_on_the_clock_are_not_exact() -> None:
    slower = line(OURS_CHAT, 0.1)
    slower["counts"] = slower["counts"] | {"pass": 1.9, "rows": 20}
    assert not OURS_CHAT.steady and changes(line(OURS_CHAT, 0.1), slower) == ([], [])


def test_a_cell_that_fails_now_is_worse() -> None:
    assert changes(line(STEADY, 0.2), {"id": STEADY.id, "turn": 0, "error": "gone"}) == (["run worse"], [])


def test_a_timing_shows_only_beyond_its_spread() -> None:
    assert changes(line(STEADY, 0.2), line(STEADY, 0.3)) == ([], ["s_per_token"])
    wide = [line(STEADY, seconds) for seconds in (0.1, 0.2, 0.3)]
    assert timed_changes(run_of(*wide), run_of(line(STEADY, 0.3))) == []


def test_what_is_steady() -> None:
    assert is_steady("rows-8", in_memory=True) and not is_steady("rows-8", in_memory=False)
    assert is_steady("kernel", in_memory=False) and not is_steady(OURS, in_memory=True)


def test_a_run_that_was_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"run": {"commit": "abc"}}\n{"id": "x", "turn": 0, "seconds": 1.0}\n{"id": "y", "tu')
    assert load(path).ids == ["x"]
    with pytest.raises(SystemExit, match="cannot read"):
        load(tmp_path / "none.jsonl")


def test_cells_that_are_there_are_not_measured_again_and_those_cut_for_time_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    cells = [replace(STEADY, kind="rows-8"), replace(STEADY, kind="rows-16")]
    done = {(cells[0].id, 0)}
    measure(path, cells, 0, done, deadline=0.0)
    tell_left_out(path, cells, done)
    assert [(r["id"], r["left_out"]) for r in load(path).records] == [(cells[1].id, "no time was left")]


def test_a_long_context_is_not_begun_where_it_cannot_end(tmp_path: Path) -> None:
    path, long = tmp_path / "a.jsonl", replace(STEADY, workload="context-8192")
    measure(path, [long], 0, set(), deadline=time.monotonic() + 100)
    assert not path.exists()


def test_cells_that_had_no_time_have_what_others_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two sections with half of the time each, the first wants a context that takes more than that."""
    monkeypatch.setattr(Cell, "run", lambda cell: {"id": cell.id, "seconds": 0.0})
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # which a run has its own of
    long = replace(STEADY, workload="context-2048")
    short = Section("b", "", 60, (STEADY,))
    run(tmp_path / "a.jsonl", [Section("a", "", 60, (long,)), short], {"minutes": 2.0, "tokens": None})
    found = load(tmp_path / "a.jsonl")
    assert found.ids == [STEADY.id, long.id] and not any("left_out" in r for r in found.records)


def test_energy_counters(tmp_path: Path) -> None:
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text("2500000\n")
        (tmp_path / name / "max_energy_range_uj").write_text("9000000\n")
    assert rapl(tmp_path) == [(2.5, 9.0), (2.5, 9.0)]
    listing = " VDD_CORE_A current(7)=2.0A\n VDD_CORE_V volt(15)=0.75V\n EXT5V_V volt(24)=5.1V\n"
    assert watts_of(listing) == pytest.approx(1.5)


def test_the_readmes_table_is_the_reports(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{build.BEGIN}\nold\n{build.END}\nafter\n")
    run = run_of(line(PLAIN_CHAT, 0.9), line(OURS_CHAT, 0.1))
    build.put_headline(run, readme)
    text = readme.read_text()
    assert "old" not in text and "| **cadcpp**: chat, greedy | 0.100 (9.0x) |" in text and text.endswith("after\n")


def test_the_project_s_own_table_is_the_published_reports() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    if build.BEGIN not in readme:
        pytest.skip("the README has no table of the report yet")
    shown = readme.partition(build.BEGIN)[2].partition(build.END)[0].strip()
    assert shown in build.REPORT.read_text("utf-8")


def test_cpu_time_a_token_is_that_after_the_first_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = iter([50.0, 53.0])
    monkeypatch.setattr("cadcpp.runtime.generation_record.time.process_time", lambda: next(spent))
    recorder = GenerationRecord(3)
    for tokens in ([1], [2, 3]):
        recorder.add(Chunk("", tokens))
        recorder.stats.passes += 1
    assert recorder.to_dict()["cpu_seconds_per_token"] == 1.5


def test_a_cell_s_bytes_a_token_leave_out_the_prompt() -> None:
    recorder = GenerationRecord(3)
    for tokens in ([1, 2], [3, 4], [5, 6]):
        recorder.add(Chunk("", tokens))
        recorder.stats.passes += 1
    output = recorder.to_dict()
    output["stats"] |= {"read_bytes": 9000, "prompt_read_bytes": 8000, "pinned_bytes": 500}
    figures = parse(CompletedProcess(["python"], 0, json.dumps(output), ""))
    assert (figures["read_per_pass"], figures["read_per_token"]) == (500, 250)


@pytest.mark.parametrize("size", models.SIZES)
def test_a_verifier_is_called_as_the_demo_calls_it(size: str) -> None:
    assert models.verifier(size).name == demo_names(models.SIZES[size], "Q8_0", "Q2_K")[1]


def test_figures_that_are_zero_or_missing_do_not_end_the_report() -> None:
    zero = {"s_per_token": 0.0, "read_per_token": 0, "round_s": 0.0, "seconds": 0.0, "cpu_per_token": 0.0}
    timed = [c for c in all_cells() if not c.kind.startswith(("memory", "profile"))]
    assert build.render(run_of(*(line(c, 0.0) | zero for c in timed)))[0]
    bare = [{"id": c.id, "turn": 0, "seconds": 1.0} for c in timed]
    assert build.render(run_of(*bare))[0]
