"""How long Ctrl-C takes in the middle of a pass that waits for the disk: from the signal to the end of the process.

At most half a second and the time that the disk takes for one layer.
"""

import argparse
import sys

from bench.matrix.cell import MIB, Place
from bench.matrix.grid import BUDGET, cell
from bench.matrix.systems import OURS, command
from bench.measure import record
from bench.measure.memory_wall import why_not
from bench.program import run_program
from cadcpp.gguf.header import read_header
from cadcpp.residency.memory_plan import make_plan


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.interrupt_latency", description=__doc__)
    parser.add_argument("--disk", type=int, default=100, help="MiB/s")
    parser.add_argument("--after", default="5,16.3,19.9,24.1", help="seconds after which to stop; the load comes first")
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(f"no memory limit here: {reason}")
    place = Place(BUDGET, options.disk)
    headers = read_header(record.demo_verifier()), read_header(record.demo_draft())
    plan = make_plan(*headers, ram=BUDGET * MIB, n_ctx=2048, rows=64)
    layer_s = plan.layout.streamed_bytes / plan.layout.n_layers / (options.disk * MIB)
    endless = command(OURS, cell(place, "story", OURS, 500).task)
    for after in map(float, options.after.split(",")):
        argv = ["timeout", "-s", "INT", str(after), *endless]
        done, usage = place.limits.run(argv, record.demo_verifier())
        took, limit = usage.seconds - after, 0.5 + layer_s
        record.append("stop", {"disk": options.disk, "after": after, "took": took, "layer_s": layer_s})
        print(f"stopped after {after:5.1f} s: took {took:.2f} s (limit {limit:.2f}), code {done.returncode}")


if __name__ == "__main__":
    run_program(main)
