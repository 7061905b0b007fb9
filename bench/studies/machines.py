"""Two machines on one: a verifier larger than either's memory, with a disk and a link of set speeds.

    python -m bench.studies.machines --ram 700 --tokens 24

Each machine is a control group with one thread; between them is `bench.measure.slow_link`. Beside cadcpp on both stands
cadcpp on one, which streams, and llama.cpp's own RPC with the same layers on the worker. Needs root.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from bench.matrix import models
from bench.matrix.cell import MIB, prompt
from bench.measure import record
from bench.measure.memory_wall import Limits, why_not
from bench.measure.slow_link import SlowLink
from bench.program import run_program
from cadcpp.gguf.header import read_header
from cadcpp.link.address import Address

_CTX = 512


@dataclass(frozen=True, slots=True)
class Wire:
    """A link: its round trip in milliseconds, and its speed in Mbit/s."""

    round_trip_ms: float
    mbit_s: int

    def __str__(self) -> str:
        return f"{self.round_trip_ms} ms, {self.mbit_s} Mbit/s"

    def to(self, target: Address) -> SlowLink:
        return SlowLink(target, self.round_trip_ms / 2000, self.mbit_s * 125_000)


WIRES = (Wire(0.3, 1000), Wire(2.0, 300))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.machines", description=__doc__)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--baseline-tokens", type=int, default=8, help="of llama.cpp; 0: leave it out")
    parser.add_argument("--ram", type=int, default=700, help="MiB, of each machine")
    parser.add_argument("--disks", default="100,400", help="MiB/s")
    parser.add_argument("--workload", default="chat")
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(f"no memory limit here: {reason}")
    print(f"{'system':<26}{'disk':>6}  {'link':<20}{'s/token':>9}{'kB/token':>10}{'trips/token':>12}{'read MB':>9}")
    for disk in map(int, options.disks.split(",")):
        _tell("cadcpp, one machine", disk, None, _ours(options, disk, None))
        for wire in WIRES:
            with _worker(options.ram) as worker, closing(wire.to(worker)) as link:
                _tell("cadcpp, two machines", disk, wire, _ours(options, disk, link.address))
            if not options.baseline_tokens:
                continue
            with _worker(options.ram) as worker, closing(wire.to(worker)) as link:
                _tell("llama.cpp's RPC, two", disk, wire, _theirs(options, disk, link.address))


@contextmanager
def _worker(ram: int) -> Iterator[Address]:
    """A running worker in a control group of its own."""
    command = [sys.executable, "-m", "cadcpp", "worker", "--listen", "127.0.0.1:0", "--ram", f"{ram - 40}MiB"]
    with Limits(ram_bytes=ram * MIB, name="cadcpp-worker").groups(models.verifier()) as enter:
        process = subprocess.Popen([*command, "--threads", "1"], stderr=subprocess.PIPE, text=True, preexec_fn=enter)
        assert process.stderr is not None
        found = re.search(r" at (\S+);", process.stderr.readline())
        assert found is not None
        try:
            yield Address.parse(found[1])
        finally:
            process.terminate()
            process.communicate()


def _ours(options: argparse.Namespace, disk: int, worker: Address | None) -> dict[str, Any]:
    pair = ["-m", str(models.verifier()), "-d", str(models.draft())]
    sizes = ["-n", str(options.tokens), "--ctx", str(_CTX), "--threads", "1", "--ram", f"{options.ram - 40}MiB"]
    command = [sys.executable, "-m", "cadcpp", "generate", *pair, *sizes, "--temp", "0", "--json"]
    workers = ["--workers", str(worker)] if worker else []
    done = _run(options, disk, [*command, "-p", prompt(options.workload), *workers])
    n, stats = done["completion_tokens"], done["stats"]
    return {
        "tokens": done["tokens"],
        "s_per_token": 1 / done["tokens_per_second"],
        "link_bytes_per_token": stats["link_bytes"] // n,
        "round_trips_per_token": stats["link_round_trips"] / n,
        "read_bytes_per_token": (stats["read_bytes"] - stats["prompt_read_bytes"]) // (n - 1),
        "load_seconds": stats["load_seconds"],
        "tokens_per_pass": stats["tokens_per_pass"],
    }


def _theirs(options: argparse.Namespace, disk: int, worker: Address) -> dict[str, Any]:
    """With as many layers on the worker as cadcpp puts there."""
    plan = [sys.executable, "-m", "cadcpp", "plan", "-m", str(models.verifier()), "-d", str(models.draft()), "--json"]
    sizes = ["--ctx", str(_CTX), "--ram", f"{options.ram - 40}MiB", "--disk-speed", f"{disk}MiB"]
    told = subprocess.run([*plan, *sizes, "--workers", str(worker)], capture_output=True, text=True, check=True)
    (share,) = json.loads(told.stdout)["workers"]
    n_layer = read_header(models.verifier()).number("block_count")
    command = [sys.executable, "-m", "bench.baselines.rpc", "-m", str(models.verifier())]
    command += ["-n", str(options.baseline_tokens), "--threads", "1"]
    where = ["--worker", str(worker), "--first", str(share["first"]), "--layers", str(n_layer), "--ctx", str(_CTX)]
    done = _run(options, disk, [*command, *where, "-p", prompt(options.workload)])
    return {**done, "s_per_token": done.pop("seconds_per_token"), "first_layer": share["first"]}


def _run(options: argparse.Namespace, disk: int, command: list[str]) -> dict[str, Any]:
    done, usage = Limits(options.ram * MIB, disk * MIB).run(command, models.verifier())
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed: {done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result | {"peak_bytes": usage.peak_bytes}


def _tell(system: str, disk: int, wire: Wire | None, result: dict[str, Any]) -> None:
    record.append("machines", {"system": system, "disk": disk, "link": str(wire or ""), **result})
    sent, trips, where = result["link_bytes_per_token"] / 1e3, result["round_trips_per_token"], str(wire or "")
    read, seconds = result["read_bytes_per_token"] / 1e6, result["s_per_token"]
    print(f"{system:<26}{disk:>6}  {where:<20}{seconds:9.3f}{sent:10.1f}{trips:12.2f}{read:9.0f}", flush=True)


if __name__ == "__main__":
    run_program(main)
