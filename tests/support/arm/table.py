"""The table of docs/exactness.md, out of what is kept."""

import re
from collections.abc import Iterator

from tests.support.arm.outcome import kept
from tests.support.arm.parts import CELLS, Part
from tests.support.arm.processors import PROCESSORS, Processor


def lines() -> Iterator[str]:
    """In Markdown; a cell that was not tried, or did not pass, is empty."""
    names = [processor.name for processor in PROCESSORS]
    yield f"| weights | {' | '.join(names)} |"
    yield "|---" * (1 + len(names)) + "|"
    for part in CELLS:
        yield f"| {part.name.upper()} | {' | '.join(_cell(processor, part) for processor in PROCESSORS)} |"


def _cell(processor: Processor, part: Part) -> str:
    """Dense, dense repacked; mixture, mixture repacked, mixture with its routers row by row."""
    outcome = kept(processor, part)
    cells = rf"^\| {part.name.upper()} " + 5 * r"\| (.+) " + r"\|$"
    row = outcome and re.search(cells, outcome.said, re.MULTILINE)
    return "{}, {}; {}, {}, {}".format(*row.groups()) if row else ""
