"""cadcpp's own code and tests on emulated ARM processors; prints which kernels are exact on each.

python -m tests.support.arm [--quick] [--optional] [PROCESSOR ...]

--quick takes a part of it, on one processor. --optional says so where tools are missing, and is content.
Nothing here says how fast anything is.
"""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.arm.processors import PACKAGES, PROCESSORS, Processor, missing_tools

ROOT = Path(__file__).parents[3]
STUDY = ["-m", "bench.studies.exactness"]
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
TEXTS, EXACTNESS = "tests/cli/test_same_text.py", "tests/native/test_exactness.py"
TESTS = [EXACTNESS, "tests/native/test_tree_batch.py", "tests/native/test_staged.py"]
WHOLE = (STUDY, [*PYTEST, *TESTS], [*PYTEST, "-m", "slow or not slow", TEXTS])
QUICK = ([*STUDY, "q8_0"], [*PYTEST, TEXTS, f"{EXACTNESS}::test_control_rows_one_by_one_are_not_enough"])


def main() -> None:
    options, names = _split(sys.argv[1:])
    if missing := missing_tools():
        print(f"not run: {', '.join(missing)} not found (apt install {PACKAGES})")
        sys.exit("--optional" not in options)
    chosen = [processor for processor in PROCESSORS if processor.name in names or not names]
    quick = "--quick" in options
    tasks = [(processor, work) for processor in chosen[: 1 if quick else None] for work in (QUICK if quick else WHOLE)]
    sys.exit(max(work_off(tasks)))


def work_off(tasks: list[tuple[Processor, list[str]]]) -> list[int]:
    """Do them, as many at a time as there are cores; prints what each says, and gives their exit codes."""
    environments = {processor: processor.environment() for processor, _ in tasks}  # made, if they are not there
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(lambda task: run(task[0], environments[task[0]], task[1]), tasks)
        return [_show(processor, result) for (processor, _), result in zip(tasks, done, strict=True)]


def _split(arguments: list[str]) -> tuple[set[str], list[str]]:
    """Options and names of processors."""
    options = {argument for argument in arguments if argument in ("--quick", "--optional")}
    names = [argument for argument in arguments if argument not in options]
    known = [processor.name for processor in PROCESSORS]
    if unknown := set(names) - set(known):
        sys.exit(f"{' '.join(unknown)}: not among {' '.join(known)}")
    return options, names


def run(processor: Processor, environment: dict[str, str], arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    """The emulated Python, at the lowest priority, with nothing remembered of other runs."""
    path = os.pathsep.join([str(ROOT), environment["PYTHONPATH"]])
    with tempfile.TemporaryDirectory() as cache:
        kept = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "XDG_CACHE_HOME": cache}
        command = ["nice", "-n", "19", *processor.python(), *arguments]
        return subprocess.run(
            command,
            env={**os.environ, **environment, **kept},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def _show(processor: Processor, done: "subprocess.CompletedProcess[str]") -> int:
    print(f"\n## {processor.name}\n\n{done.stdout.strip()}", flush=True)
    return abs(done.returncode)


if __name__ == "__main__":
    main()
