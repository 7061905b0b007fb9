"""cadcpp's own code and tests on emulated ARM processors; prints which kernels are exact on each.

python -m tests.support.arm [--quick] [--again] [--jobs N] [--optional] [PROCESSOR ...] [PART ...]

A part is a type of weights, or a group of tests. One that passed is not run again until something changes that it
depends on, so a run that was ended goes on with the same command.
--quick takes a few of them, on one processor. --again runs them whatever is known. --jobs: as
many at a time, by default as there are cores.
--optional says so where tools are missing, and is content. Nothing here says how fast anything is.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.support.arm.outcome import Outcome, kept, run
from tests.support.arm.parts import QUICK, WHOLE, Part
from tests.support.arm.processors import PACKAGES, PROCESSORS, Processor, missing_tools
from tests.support.arm.table import lines

Task = tuple[Processor, Part]


def main() -> None:
    options = _options()
    if missing := missing_tools():
        print(f"not run: {', '.join(missing)} not found (apt install {PACKAGES})")
        sys.exit(not options.optional)
    try:
        codes = work_off(_tasks(options.names, options.quick), again=options.again, n_jobs=options.jobs)
    except KeyboardInterrupt:
        sys.exit("\nended; the same command goes on")
    print("", *lines(), sep="\n")
    sys.exit(max(codes))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.support.arm")
    for name in ("--quick", "--again", "--optional"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--jobs", type=int, metavar="N", default=len(os.sched_getaffinity(0)))
    parser.add_argument("names", nargs="*", metavar="PROCESSOR or PART")
    options = parser.parse_args()
    parts = QUICK if options.quick else WHOLE
    known = [*(processor.name for processor in PROCESSORS), *(part.name for part in parts)]
    if unknown := set(options.names) - set(known):
        parser.error(f"{' '.join(unknown)}: not among {' '.join(known)}")
    return options


def _tasks(names: Sequence[str], quick: bool) -> list[Task]:
    """Those named; without a name of a kind all of that kind."""
    parts, processors = (QUICK, PROCESSORS[:1]) if quick else (WHOLE, PROCESSORS)
    wanted = [processor for processor in PROCESSORS if processor.name in names] or processors
    return [(processor, part) for processor in wanted for part in [p for p in parts if p.name in names] or parts]


def work_off(tasks: Sequence[Task], *, again: bool, n_jobs: int) -> list[int]:
    """Run them, ``n_jobs`` at a time; prints what each says, and gives their exit codes."""
    with ThreadPoolExecutor(n_jobs) as pool:
        outcomes = pool.map(lambda task: (not again and kept(*task)) or run(*task), tasks)
        return [_show(*task, outcome) for task, outcome in zip(tasks, outcomes, strict=True)]


def _show(processor: Processor, part: Part, outcome: Outcome) -> int:
    took = "kept" if outcome.seconds is None else f"{outcome.seconds:.0f} s"
    print(f"\n## {processor.name}, {part.name} ({took})\n\n{outcome.said.strip()}", flush=True)
    return outcome.code


if __name__ == "__main__":
    main()
