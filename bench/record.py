"""Results as JSON lines: each with the code, the settings and the machine it was measured on."""

import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"


def append(name: str, record: dict[str, Any]) -> Path:
    """Add a record to bench/results/<name>.jsonl."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.jsonl"
    line = {"time": datetime.now(timezone.utc).isoformat(timespec="seconds"), "commit": commit(), **host(), **record}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return path


@cache
def commit() -> str:
    """Of the working tree at the first call, with a plus if it has changes; empty outside of git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def host() -> dict[str, Any]:
    return {"host": f"{platform.system()} {platform.release()} {platform.machine()}", "cores": os.cpu_count()}


def models() -> Path:
    """Where the demo pair lies."""
    return Path(os.environ.get("CADCPP_MODELS") or ROOT / "models")


def demo_verifier() -> Path:
    return models() / "smollm2-135m-wide-1.2GB-Q8_0.gguf"


def demo_draft() -> Path:
    return models() / "smollm2-135m-draft-Q2_K.gguf"
