"""`python -m bench.repeat ID`: one cell of the report again."""

import argparse
import json
import sys

from bench.matrix.grid import all_cells
from bench.program import run_program


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.repeat", description=__doc__)
    parser.add_argument("id", metavar="ID", help="as in the report, such as memory/chat/cadcpp")
    parser.add_argument("--tokens", type=int)
    options = parser.parse_args()
    found = [cell for cell in all_cells(options.tokens) if cell.id == options.id]
    if not found:
        sys.exit(f"no cell {options.id}: take an id out of bench/report.md")
    if reason := found[0].why_not():
        sys.exit(reason)
    print(json.dumps(found[0].run(), indent=1))


if __name__ == "__main__":
    run_program(main)
