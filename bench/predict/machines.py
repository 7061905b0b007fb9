"""How much faster further machines make a model that is larger than one: predictions, by the planner's own formulas.

python -m bench.predict.machines        a table in Markdown
"""

from bench.predict.devices import ARCHITECTURES, DEVICES
from bench.predict.forecast import Workers, forecast, header_of
from bench.predict.simulate import RANGE
from bench.program import run_program
from cadcpp.errors import ConfigError
from cadcpp.gguf.header import Header
from cadcpp.models.catalog import pairs

MODELS = ("qwen3-14b", "qwen3-32b", "llama-3.3-70b")
MOST = 4
LINKS = {"0.3 ms, 1 Gbit/s": (0.3e-3, 8e-9), "2 ms, 300 Mbit/s": (2e-3, 8 / 300e6)}  # there and back, and of a byte
_N_CTX = 4096
_PI = next(device for device in DEVICES if device.name == "Pi 5 8 GB, NVMe")
_DISKS = {"SD card": next(device for device in DEVICES if "SD card" in device.name), "NVMe": _PI}


def main() -> None:
    low, high = (f"{share:.0%}" for share in RANGE)
    drafted = " | ".join(f"{disk}, {link}" for disk in _DISKS for link in LINKS)
    print(f"Seconds a token, agreement of {low} to {high}.\n")
    print(f"| model | workers | layers here | read a pass | {drafted} |\n|{'---|' * (4 + len(_DISKS) * len(LINKS))}")
    for name in MODELS:
        draft, verifier = (header_of(entry, ARCHITECTURES[entry.name]) for entry in pairs()[name].models)
        for n in range(MOST + 1):
            print(line(name, verifier, draft, n))


def line(name: str, verifier: Header, draft: Header, n: int) -> str:
    """A row of the table."""
    n_blocks = verifier.number("block_count")
    head = f"| {name}, {verifier.n_bytes / 1e9:.1f} GB | {n} |"
    try:
        plan = forecast(verifier, draft, _PI, RANGE[0], _N_CTX, workers=Workers(n, 0.0, 0.0)).plan
    except ConfigError:
        return f"{head} does not fit {'| ' * (3 + len(_DISKS) * len(LINKS))}"
    here = plan.workers[0].first if plan.workers else n_blocks
    reads = f"{plan.read_bytes / 1e9:.1f} GB" if plan.streams else "nothing"
    return f"{head} {here} | {reads} | {' | '.join(_seconds(verifier, draft, n))} |"


def _seconds(verifier: Header, draft: Header, n: int) -> list[str]:
    """For each disk and link the range of what drafts may bring."""
    found = []
    for device in _DISKS.values():
        for round_trip_s, byte_s in LINKS.values():
            workers = Workers(n, round_trip_s, byte_s)
            casts = [forecast(verifier, draft, device, share, _N_CTX, workers=workers) for share in RANGE]
            found.append(" to ".join(dict.fromkeys(_figure(cast.drafted_s) for cast in casts)))
    return found


def _figure(seconds: float) -> str:
    return f"{seconds:#.2g}" if seconds < 10 else f"{seconds:.0f}"


if __name__ == "__main__":
    run_program(main)
