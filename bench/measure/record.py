"""Results as JSON lines: each with the code, the settings and the machine it was measured on."""

import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cadcpp._version import __version__

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"


def append(name: str, record: dict[str, Any]) -> Path:
    """Add a record to bench/results/<name>.jsonl."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.jsonl"
    line = {"time": now(), "commit": commit(), **host(), **record}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return path


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@cache
def commit() -> str:
    """Of the working tree at the first call, with a plus if it has changes; empty outside of git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def host() -> dict[str, Any]:
    return {"host": f"{platform.system()} {platform.release()} {platform.machine()}", "cores": os.cpu_count()}


def versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("llama-cpp-python", "numpy")}
    return {"cadcpp": __version__, "python": platform.python_version(), **packages}


def processor() -> str:
    """Its name and vector units, as far as the kernel tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    fields = {key.strip(): value.strip() for key, value in found.items()}
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    units = [flag for flag in flags if flag.startswith(("avx2", "avx512f", "avx_vnni", "amx_tile", "asimddp", "i8mm"))]
    return f"{fields.get('model name', platform.machine())} ({', '.join(units)})"


def models() -> Path:
    """Where the demo pair lies."""
    return Path(os.environ.get("CADCPP_MODELS") or ROOT / "models")


def demo_verifier() -> Path:
    return models() / "smollm2-135m-wide-1.2GB-Q8_0.gguf"


def demo_draft() -> Path:
    return models() / "smollm2-135m-draft-Q2_K.gguf"
