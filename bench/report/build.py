"""bench/report.md out of the records of a run.

    python -m bench.report.build [RECORDS.jsonl] [REPORT.md]        the last run here, or the published one
    python -m bench.report.build --readme                           puts the headline table into README.md as well

Charts go beside the report, into measured/; they need the `bench` extra.
"""

import argparse
import re
from pathlib import Path

from bench.matrix.grid import Section, sections
from bench.matrix.systems import OTHERS
from bench.measure.record import ROOT
from bench.measure.results import Run, differing, latest, load
from bench.program import run_program
from bench.report.charts import Chart, can_draw, draw_all
from bench.report.goals import Goal, goals
from bench.report.part import Part
from bench.report.resources import energy
from bench.report.sections import RENDER
from bench.report.speed import headline, headline_chart
from bench.report.tables import cells_table, number, table

REPORT = ROOT / "bench" / "report.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- headline: python -m bench.report.build --readme -->", "<!-- end of headline -->"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report.build", description=__doc__)
    parser.add_argument("records", nargs="?", type=Path)
    parser.add_argument("report", nargs="?", type=Path, default=REPORT)
    parser.add_argument("--readme", action="store_true")
    options = parser.parse_args()
    run = load(options.records or latest())
    write(run, options.report)
    if options.readme:
        put_headline(run, README)


def write(run: Run, path: Path) -> None:
    """The report and its charts."""
    text, charts = render(run)
    if can_draw():
        draw_all(charts, path.parent / "measured")
    else:
        text += "\nNo charts were drawn: they need matplotlib (`pip install 'cadcpp[bench]'`).\n"
    path.write_text(text, encoding="utf-8")
    print(path)


def render(run: Run) -> tuple[str, list[Chart]]:
    """The text, and what is to be drawn."""
    wanted = sections(bool(run.settings.get("quick")))
    found, parts = goals(run), [(section, RENDER[section.key](run, section)) for section in wanted]
    first, last = first_page(run, found), energy(run)
    lines = ["# What cadcpp measures", "", *first.lines, *goals_table(found), *method(), *texts(run)]
    for section, part in parts:
        lines += [f"## {section.title}", "", *_body(run, section, part)]
    lines += ["## Energy", "", *last.lines, *left_out(run)]
    return "\n".join(lines).rstrip() + "\n", [
        chart for part in (first, *(p for _, p in parts), last) for chart in part.charts
    ]


def first_page(run: Run, found: list[Goal]) -> Part:
    """What it is, the headline's table and chart, and what was not reached."""
    part = Part([*about(run), *headline(run)])
    part.draw(headline_chart(run))
    missed = [goal for goal in found if goal.reached is False]
    if missed:
        part.say(f"**Not reached**, of {len(found)} goals:")
        part.say(*(f"- {g.text}: {number(g.value)} instead of {g.sign} {g.limit:g}" for g in missed))
    return part


def _body(run: Run, section: Section, part: Part) -> list[str]:
    if not any(run.of(cell.id).runs for cell in section.cells):
        return [f"Not measured in this run: `python -m bench.run {section.key}` does.", ""]
    timed = [cell for cell in section.cells if not cell.kind.startswith(("memory", "profile", "first"))]
    return [*part.lines, *(cells_table(run, timed, differing(run)) if timed else [])]


def about(run: Run) -> list[str]:
    """Host, versions, commit, and how to do it again."""
    found = run.settings
    kind = "a quick run" if found.get("quick") else "a whole run"
    took = f", {run.seconds / 60:.0f} minutes" if run.ended else ", **not yet at its end**"
    versions = ", ".join(f"{name} {value}" for name, value in found.get("versions", {}).items())
    return [
        f"Of {kind} (`make bench{'-quick' if found.get('quick') else ''}`, {found.get('began', '?')}{took}), commit"
        f" {found.get('commit') or 'unknown'}, on {found.get('host', '?')}, {found.get('cores', '?')} cores:"
        f" {found.get('processor', '?')}. {versions}.",
        "",
        "A verifier of 1.19 GB in 900 MiB, page cache included, with a draft of 88 MB. It is a widened SmolLM2-135M:"
        " its speed is real, its wit is SmolLM2's. Plain llama.cpp runs at its own defaults.",
        "",
    ]


def method() -> list[str]:
    """What the figures of all cells have in common."""
    return [
        "## Cells",
        "",
        "Every cell is a fresh process that starts with cold caches. Texts are compared with llama.cpp configured like"
        " cadcpp, called same settings. Seconds a token leave out the first pass, which reads the prompt. `±` is half"
        " of the range over the runs of a cell, where it ran more than once. Greedy unless it says otherwise."
        " `machine` is what all cores hashed in the second before, in MB: where it is alike, cells are comparable."
        " A cell is repeated with `python -m bench.repeat ID` (as root, if it has a limit); its record has the full"
        " command.",
        "",
    ]


def texts(run: Run) -> list[str]:
    """Whether all systems wrote what plain decoding wrote."""
    found = differing(run)
    wrong = {id: where for id, where in found.items() if where}
    if not found:
        return []
    if not wrong:
        return [f"All {len(found)} texts are those of plain decoding, token for token.", ""]
    ours = {id: where for id, where in wrong.items() if id.split("/")[2] not in OTHERS}
    loud = f"**{len(ours)} OF {len(found)} TEXTS DIFFER FROM PLAIN DECODING:**" if ours else ""
    others = f"{len(found) - len(wrong)} of {len(found)} texts are those of plain decoding; other systems' are not:"
    return [loud or others, "", *(f"- `{id}` {where}" for id, where in wrong.items()), ""]


def goals_table(found: list[Goal]) -> list[str]:
    """What was reached and what was not, in one table."""
    words = {True: "reached", False: "**NOT reached**", None: "not measured"}
    missed = sum(goal.reached is False for goal in found)
    rows = [[g.text, f"{g.sign} {g.limit:g}", number(g.value), words[g.reached]] for g in found]
    counts = f"{sum(g.reached is True for g in found)} reached, {missed} not, of {len(found)}."
    return ["## Goals", "", counts, "", *table(["", "goal", "measured", ""], rows)]


def left_out(run: Run) -> list[str]:
    """What was not measured or failed, and why."""
    reasons = dict[str, list[str]]()
    for id in run.ids:
        if reason := run.of(id).problem:
            reasons.setdefault(reason, []).append(f"`{id}`")
    if not reasons:
        return []
    return ["## Left out or failed", "", *(f"- {reason}: {', '.join(ids)}" for reason, ids in reasons.items())]


def put_headline(run: Run, readme: Path) -> None:
    """Replace the README's table by the report's. Raises SystemExit where it has no place for one."""
    text = readme.read_text("utf-8")
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{readme} has no place for the table: a line {BEGIN} and a line {END}")
    block = "\n".join([BEGIN, *headline(run), END])
    readme.write_text(pattern.sub(lambda _: block, text), encoding="utf-8")


if __name__ == "__main__":
    run_program(main)
