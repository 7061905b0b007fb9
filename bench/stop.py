"""How long Ctrl-C takes in the middle of a pass that waits for the disk: from the signal to the end of the process.

At most half a second and the time that the disk takes for one layer.
"""

import argparse
import sys

from bench import record
from bench.behind import BUDGETS_MIB, DISKS, MIB
from bench.cases import in_template
from bench.systems import Sizes, cadcpp
from bench.wall import Wall, why_not
from cadcpp.native.gguf import read_header
from cadcpp.plan import make_plan


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stop", description=__doc__)
    parser.add_argument("--disk", choices=[name for name, speed in DISKS.items() if speed], default="100 MiB/s")
    parser.add_argument("--after", default="5,16.3,19.9,24.1", help="seconds after which to stop; the load comes first")
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(f"no wall here: {reason}")
    speed, ram = DISKS[options.disk] or 1, BUDGETS_MIB[1.3]
    headers = read_header(record.demo_verifier()), read_header(record.demo_draft())
    plan = make_plan(*headers, ram=ram * MIB, n_ctx=2048, rows=64)
    layer_s = plan.layout.streamed_bytes / plan.layout.n_layers / speed
    system = cadcpp(in_template("story"), Sizes(n_plain=1, n=500, rows=64, ram=ram))
    for after in map(float, options.after.split(",")):
        command = ["timeout", "-s", "INT", str(after), *system.command]
        done, usage = Wall(ram * MIB, speed).run(command, record.demo_verifier())
        took, limit = usage.seconds - after, 0.5 + layer_s
        record.append("stop", {"disk": options.disk, "after": after, "took": took, "layer_s": layer_s})
        print(f"stopped after {after:5.1f} s: took {took:.2f} s (limit {limit:.2f}), code {done.returncode}")


if __name__ == "__main__":
    main()
