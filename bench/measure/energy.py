"""Joules, where the machine counts them: RAPL on x86, the PMIC of a Raspberry Pi 5."""

import re
import subprocess
import threading
import time
from pathlib import Path

_RAPL = Path("/sys/class/powercap")
_PMIC = ["vcgencmd", "pmic_read_adc"]
_PERIOD_S = 0.25


class Meter:
    """Counts while its block runs; ``joules`` is None where nobody counts."""

    joules: float | None = None

    def __enter__(self) -> "Meter":
        self._before, self._over = rapl(), threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True) if not self._before and _watts() else None
        if self._thread:
            self.joules = 0.0
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread:
            self._over.set()
            self._thread.join()
        elif self._before:
            self.joules = sum(_since(*pair) for pair in zip(self._before, rapl(), strict=True))

    def _sample(self) -> None:
        last = time.perf_counter()
        while not self._over.wait(_PERIOD_S):
            watts, now = _watts() or 0.0, time.perf_counter()
            self.joules, last = (self.joules or 0.0) + watts * (now - last), now


def rapl(root: Path = _RAPL) -> list[tuple[float, float]]:
    """Joules so far and where the counter wraps, of each processor package; empty without the right to read them."""
    try:
        packages = sorted(p for p in root.glob("intel-rapl:*") if re.fullmatch(r"intel-rapl:\d+", p.name))
        return [(_read(p / "energy_uj"), _read(p / "max_energy_range_uj")) for p in packages]
    except OSError:
        return []


def source() -> str | None:
    """What counts joules here."""
    return "RAPL" if rapl() else "PMIC" if _watts() else None


def _since(before: tuple[float, float], now: tuple[float, float]) -> float:
    return (now[0] - before[0]) % now[1] if now[1] else now[0] - before[0]


def _read(path: Path) -> float:
    return int(path.read_text()) / 1e6


def _watts() -> float | None:
    """Of all rails of the PMIC together, right now."""
    try:
        done = subprocess.run(_PMIC, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return watts_of(done.stdout)


def watts_of(listing: str) -> float | None:
    """Of what ``vcgencmd pmic_read_adc`` prints: volts times amperes, over the rails that have both."""
    found = re.findall(r"(\w+)_([AV]) \w+\(\d+\)=([\d.]+)[AV]", listing)
    amperes, volts = ({name: float(value) for name, kind, value in found if kind == unit} for unit in "AV")
    return sum(amperes[name] * volts[name] for name in amperes if name in volts) or None
