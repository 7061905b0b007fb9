"""What is run on an emulated processor, in parts that end within minutes, so that a run can be ended and goes on."""

from dataclasses import dataclass

from bench.studies.exactness import TYPES

_SUPPORT = ("tests/conftest.py", "tests/support/*.py")


@dataclass(frozen=True, slots=True)
class Part:
    """Arguments of a Python, and the files beside `cadcpp/` that the result depends on."""

    name: str
    arguments: tuple[str, ...]
    files: tuple[str, ...]


def _cells(kind: str) -> Part:
    """A row of the table of exact kernels."""
    study = "bench/studies/exactness.py", "bench/studies/replay.py", "tests/support/trees.py"
    return Part(kind, ("-m", "bench.studies.exactness", "--small", kind), study)


def _tests(name: str, file: str, *options: str) -> Part:
    arguments = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=5", *options, file)
    return Part(name, arguments, (*_SUPPORT, file.partition("::")[0]))


_EXACTNESS, _TEXTS = "tests/native/test_exactness.py", "tests/cli/test_same_text.py"
CELLS = tuple(map(_cells, TYPES))
TESTS = (
    _tests("probe", _EXACTNESS),
    _tests("trees", "tests/native/test_tree_batch.py"),
    _tests("staged", "tests/native/test_staged.py"),
    _tests("states", "tests/native/test_states.py", "-k", "lfm2 or qwen35"),
    _tests("texts", _TEXTS, "-m", "slow or not slow", "-k", "not lfm2 and not qwen35"),
    _tests("state-texts", _TEXTS, "-m", "slow or not slow", "-k", "lfm2 or qwen35"),
)
WHOLE = (*CELLS, *TESTS)
QUICK = (
    next(part for part in CELLS if part.name == "q8_0"),
    _tests("control", f"{_EXACTNESS}::test_control_rows_one_by_one_are_not_enough"),
    _tests("few-texts", _TEXTS),
)
