"""Plans of published hybrids in 1 to 16 GB, and what they would do with a Raspberry Pi 5's processor and NVMe.

    python -m bench.predict.hybrids        a table in Markdown

Predictions, not measurements: what is read a pass is what `cadcpp plan` says of header-only files.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.predict.devices import DEVICES, Device
from bench.predict.forecast import Forecast, forecast
from bench.predict.published import write
from bench.predict.simulate import RANGE
from bench.program import run_program
from cadcpp.errors import ConfigError
from cadcpp.gguf.blocks import state_bytes
from cadcpp.gguf.header import Header, read_header
from cadcpp.native.snapshots import keeps_snapshots
from cadcpp.residency.kernel_mode import KernelModes
from cadcpp.residency.states import States

PAIRS: dict[str, str | None] = {  # what drafts, if there is a sibling that can
    "qwen3.5-4b": "qwen3.5-0.8b",
    "qwen3.5-9b": "qwen3.5-0.8b",
    "qwen3.5-27b": "qwen3.5-0.8b",
    "lfm2-2.6b": "lfm2-350m",
    "lfm2.5-2.6b": None,
}
MEMORY_GB = (1, 4, 8, 16)
_PI = next(device for device in DEVICES if "NVMe gen 3" in device.name)


def main() -> None:
    low, high = (f"{share:.0%}" for share in RANGE)
    print("| verifier | memory | state | chains | snapshots | kept | read a pass | llama.cpp | no draft |", end="")
    print(f" {low} | {high} | gain |\n|{'---|' * 12}")
    with TemporaryDirectory() as folder:
        for verifier, draft in PAIRS.items():
            header = read_header(write(verifier, Path(folder)))
            smaller = read_header(write(draft, Path(folder))) if draft else None
            for n_gb in MEMORY_GB:
                print(line(verifier, header, smaller, n_gb))


def line(name: str, verifier: Header, draft: Header | None, n_gb: int) -> str:
    """A row of the table."""
    head = f"| {name} | {n_gb} GB | {state_bytes(verifier) / (1 << 20):.3g} MiB |"
    try:
        casts = [cast(verifier, draft, n_gb, share) for share in RANGE]
    except ConfigError:
        return f"{head} | does not fit | | | | | | | |"
    plan, mapped_s = casts[0].plan, casts[0].mapped_s
    seconds = [one.drafted_s if draft else one.plain_s for one in casts]
    reads = f"{plan.read_bytes / 1e9:.2f} GB" if plan.streams else "nothing"
    gains = " to ".join(dict.fromkeys(f"{mapped_s / s:.1f}" for s in seconds))
    drafted = [_seconds(s) if draft else "" for s in seconds]
    figures = " | ".join([_seconds(mapped_s), _seconds(casts[0].plain_s), *drafted])
    kept, states = plan.layout.pinned_bytes / 1e9, plan.verifier_shape.states or States()
    return f"{head} {states.n_chains} | {states.n_snapshots} | {kept:.2f} GB | {reads} | {figures} | {gains}x |"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}"


def cast(verifier: Header, draft: Header | None, n_gb: int, agreement: float) -> Forecast:
    device: Device = replace(_PI, ram=int(n_gb * 1e9))
    return forecast(verifier, draft, device, agreement, 4096, KernelModes(snapshots=keeps_snapshots(verifier)))


if __name__ == "__main__":
    run_program(main)
