"""What changed between two runs: `python -m bench.report.compare BEFORE.jsonl AFTER.jsonl`.

Exact figures come first: a text, and where no clock decides on trees the passes, rows, draft decodes and planned
bytes. They differ only if the code does; bytes that the kernel counted, by more than 3%. Timings follow, those that
moved by more than both runs' spread and 5%. Ends with code 1 if an exact figure became worse or a text changed.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.measure.results import Result, Run, load
from bench.program import run_program
from bench.report.tables import number

LARGER_IS_BETTER = ("pass", "accepted")
NEITHER = ("n", "prompt_tokens")
KERNEL = {"read_per_pass": 0.03, "peak_bytes": 0.03, "own_bytes": 0.03}  # how far these differ by chance
LEAST_BYTES = 5_000_000  # of which a few pages more or less are no change
TIMES = {"s_per_token": 0.05, "seconds": 0.1}


@dataclass(frozen=True, slots=True)
class Change:
    """A figure of a cell in two runs."""

    id: str
    key: str
    before: float | str
    after: float | str
    worse: bool
    chance: float | None = None  # how far it may move by chance; None: not at all

    def __str__(self) -> str:
        if isinstance(self.before, str) or isinstance(self.after, str):
            return f"{self.id:<44} {self.key}: {self.before} -> {self.after}" + (" worse" if self.worse else "")
        moved = f" ({self.after / self.before - 1:+.1%})" if self.before else ""
        chance = f", by chance {self.chance:.0%}" if self.chance is not None else ""
        word = "worse" if self.worse else ""
        return f"{self.id:<44} {self.key}: {number(self.before, 4)} -> {number(self.after, 4)}{moved}{chance} {word}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report.compare", description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args()
    before, after = load(options.before), load(options.after)
    exact, timed = exact_changes(before, after), timed_changes(before, after)
    show(before, after, exact, timed)
    sys.exit(any(change.worse for change in exact))


def shared(before: Run, after: Run) -> list[tuple[str, Result, Result]]:
    pairs = [(id, before.of(id), after.of(id)) for id in before.ids]
    return [pair for pair in pairs if pair[1].good and pair[2].good]


def exact_changes(before: Run, after: Run) -> list[Change]:
    """Figures that do not depend on time and differ nevertheless; and cells that failed before or fail now."""
    found = []
    for id, a, b in shared(before, after):
        old, new = a.exact, b.exact
        for key in (key for key in old if key in new and old[key] != new[key]):
            found.append(Change(id, key, old[key], new[key], _is_worse(key, old[key], new[key])))
        found += [change for key, chance in KERNEL.items() if (change := _moved(id, key, a, b, chance, factor=1))]
    for id in before.ids:
        failed = [any("error" in record for record in run.of(id).runs) for run in (before, after)]
        if failed[0] != failed[1] and after.of(id).runs:
            was, is_now = ("failed" if f else "ran" for f in failed)
            found.append(Change(id, "run", was, is_now, worse=failed[1]))
    return found


def timed_changes(before: Run, after: Run) -> list[Change]:
    """Times that moved by more than they do by chance; and counts that hang on time."""
    found = []
    for id, a, b in shared(before, after):
        keys = TIMES | ({} if a.runs[0].get("steady") else {"pass": 0.1})
        for key, chance in keys.items():
            if change := _moved(id, key, a, b, chance):
                found.append(change)
    return found


def _is_worse(key: str, old: float | str, new: float | str) -> bool:
    if isinstance(old, str) or isinstance(new, str):
        return True  # another text
    if key in NEITHER:
        return False
    return new < old if key in LARGER_IS_BETTER else new > old


def _moved(id: str, key: str, a: Result, b: Result, least: float, factor: float = 2) -> Change | None:
    """A median that moved further than ``least``, and than ``factor`` times what either run's spread explains."""
    old, new = a.median(key), b.median(key)
    if not old or new is None or (key in KERNEL and max(old, new) < LEAST_BYTES):
        return None
    chance = max(least, factor * max(a.spread(key) or 0.0, b.spread(key) or 0.0))
    if abs(new / old - 1) <= chance:
        return None
    return Change(id, key, old, new, _is_worse(key, old, new), chance)


def show(before: Run, after: Run, exact: list[Change], timed: list[Change]) -> None:
    for name, run in {"before": before, "after": after}.items():
        settings = run.settings
        print(
            f"{name}: {settings.get('commit')}, {settings.get('began')}, {settings.get('host')}, {len(run.ids)} cells"
        )
    print(f"\nexact figures: {len(exact)} changed, {sum(c.worse for c in exact)} became worse")
    print(*(f"  {change}" for change in exact), sep="\n")
    print(f"\ntimings: {len(timed)} moved, {sum(c.worse for c in timed)} became worse")
    print(*(f"  {change}" for change in timed), sep="\n")


if __name__ == "__main__":
    run_program(main)
