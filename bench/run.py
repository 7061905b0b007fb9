"""The whole bench: every section's cells in turn, a JSON line each, then the report.

    python -m bench.run                     everything, in under an hour
    python -m bench.run --quick             a part of it, in under eight minutes
    python -m bench.run ablation sweep      some sections

First every cell runs once, then those that are short run again while time is left. A run that was ended goes on with
the same command; one that was done is moved aside, and a new one begins.
"""

import argparse
import shutil
import sys
from pathlib import Path

from bench.matrix.grid import sections
from bench.matrix.runner import run
from bench.measure import record
from bench.measure.results import MEASURED, load
from bench.program import run_program
from bench.report import build

MINUTES, QUICK_MINUTES = 58.0, 7.5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(s.key for s in sections()))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--minutes", type=float, help="that it may take in all")
    parser.add_argument("--tokens", type=int, help="in every cell at most, to try things out")
    parser.add_argument("-o", "--output", type=Path, help="of the JSON lines")
    options = parser.parse_args()
    if unknown := set(options.sections) - {s.key for s in sections()}:
        parser.error(f"unknown {sorted(unknown)}; sections are {[s.key for s in sections()]}")
    minutes = options.minutes or (QUICK_MINUTES if options.quick else MINUTES)
    wanted = [s for s in sections(options.quick, options.tokens) if not options.sections or s.key in options.sections]
    path = options.output or record.RESULTS / f"{name_of(options)}.jsonl"
    about = {"quick": options.quick, "tokens": options.tokens, "minutes": minutes}
    try:
        run(path, wanted, {**about, "sections": [s.key for s in wanted]})
    except KeyboardInterrupt:
        sys.exit(f"\nended; the same command goes on, and `python -m bench.report.build {path}` shows what is there")
    publish(path, whole=not (options.quick or options.sections or options.tokens or options.output))


def name_of(options: argparse.Namespace) -> str:
    return "quick" if options.quick else "-".join(["report", *options.sections])


def publish(path: Path, *, whole: bool) -> None:
    """Only a whole run becomes the report of the project; of others the report lies beside the lines."""
    if whole:
        MEASURED.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, MEASURED)
        build.write(load(MEASURED), build.REPORT)
        return
    build.write(load(path), path.with_suffix(".md"))


if __name__ == "__main__":
    run_program(main)
