"""Plans of published hybrids in 4, 8 and 16 GB, and what they would do with a Raspberry Pi 5's processor and NVMe.

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
from cadcpp.errors import ConfigError
from cadcpp.gguf.blocks import state_bytes
from cadcpp.gguf.header import Header, read_header
from cadcpp.native.snapshots import keeps_snapshots
from cadcpp.residency.kernel_mode import KernelModes

PAIRS = {
    "qwen3.5-4b": "qwen3.5-0.8b",
    "qwen3.5-9b": "qwen3.5-0.8b",
    "qwen3.5-27b": "qwen3.5-0.8b",
    "lfm2-2.6b": "lfm2-350m",
}
MEMORY_GB = (4, 8, 16)
_PI = next(device for device in DEVICES if "NVMe gen 3" in device.name)


def main() -> None:
    low, high = (f"{share:.0%}" for share in RANGE)
    print("| verifier | memory | state | snapshots | kept | read a pass | llama.cpp | no draft |", end="")
    print(f" {low} | {high} | gain |\n|{'---|' * 11}")
    with TemporaryDirectory() as folder:
        for verifier, draft in PAIRS.items():
            headers = read_header(write(verifier, Path(folder))), read_header(write(draft, Path(folder)))
            for n_gb in MEMORY_GB:
                print(line(verifier, *headers, n_gb))


def line(name: str, verifier: Header, draft: Header, n_gb: int) -> str:
    """A row of the table."""
    head = f"| {name} | {n_gb} GB | {state_bytes(verifier) / (1 << 20):.3g} MiB |"
    try:
        casts = [cast(verifier, draft, n_gb, share) for share in RANGE]
    except ConfigError:
        return f"{head} | does not fit | | | | | | |"
    plan, plain = casts[0].plan, [casts[0].mapped_s, casts[0].plain_s]
    states, seconds = plan.verifier_shape.states, [one.drafted_s for one in casts]
    reads = f"{plan.read_bytes / 1e9:.2f} GB" if plan.streams else "nothing"
    gains = " to ".join(f"{plain[0] / s:.1f}" for s in seconds)
    figures = " | ".join(f"{s:.2g}" if s < 10 else f"{s:.0f}" for s in (*plain, *seconds))
    kept = plan.layout.pinned_bytes / 1e9
    return f"{head} {states.n_snapshots if states else 0} | {kept:.2f} GB | {reads} | {figures} | {gains}x |"


def cast(verifier: Header, draft: Header, n_gb: int, agreement: float) -> Forecast:
    device: Device = replace(_PI, ram=int(n_gb * 1e9))
    return forecast(verifier, draft, device, agreement, 4096, KernelModes(snapshots=keeps_snapshots(verifier)))


if __name__ == "__main__":
    main()
