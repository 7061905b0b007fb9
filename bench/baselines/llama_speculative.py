"""Baseline: llama.cpp's own chain speculation, from the sources inside the llama-cpp-python package.

python -m bench.baselines.llama_speculative          builds it, once; takes some minutes
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.baselines.own_defaults import survives_defaults
from bench.measure.record import ROOT
from bench.program import run_program

BINARY = ROOT / "bench" / "build" / "bin" / "llama-speculative-simple"
_OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_TOOLS": "OFF",
    "LLAMA_BUILD_SERVER": "OFF",
    "LLAMA_OPENSSL": "OFF",
}


def main() -> None:
    if BINARY.exists():
        return
    if not shutil.which("cmake"):
        sys.exit("building llama.cpp's speculation needs cmake: install it, or leave it out of the bench")
    with tempfile.TemporaryDirectory() as folder:
        _build(sources(Path(folder)))


def sources(folder: Path) -> Path:
    """llama.cpp as it is inside the package's sources, which are downloaded to a folder."""
    name = "llama-cpp-python"  # it alone as sources, and not what pip builds them with
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--no-binary={name}"]
    subprocess.run([*command, "-d", str(folder), f"{name}=={version(name)}"], check=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        if hasattr(tarfile, "data_filter"):  # early versions of Python 3.10 and 3.11 have none
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(folder)
    return next(folder.glob("*/vendor/llama.cpp"))


def _build(sources: Path) -> None:
    target = BINARY.parents[1]
    flags = [f"-D{key}={value}" for key, value in _OPTIONS.items()]
    subprocess.run(["cmake", "-S", str(sources), "-B", str(target), *flags], check=True)
    subprocess.run(["cmake", "--build", str(target), "-j", str(os.cpu_count()), "--target", BINARY.name], check=True)


def command(verifier: str, draft: str, prompt: str, n: int, n_max: int, n_ctx: int = 2048) -> list[str]:
    """Greedy, at llama.cpp's own defaults; without repacking where this machine does not survive that."""
    careful = [] if survives_defaults(Path(verifier)) else ["-nr"]
    size = ["-c", str(n_ctx), "-n", str(n), "--spec-draft-n-max", str(n_max), "--spec-type", "draft-simple"]
    return [str(BINARY), "-m", verifier, "-md", draft, "-p", prompt, "--temp", "0", *size, *careful]


def parse(output: str) -> dict[str, Any]:
    """Its own figures; raises ValueError if it printed none."""
    decoded = re.search(r"decoded\s+(\d+) tokens in\s+([\d.]+) seconds", output)
    drafted, accepted = (re.search(rf"n_{name}\s*=\s*(\d+)", output) for name in ("drafted", "accept"))
    if not (decoded and drafted and accepted):
        raise ValueError(f"llama.cpp printed no figures: {output[-200:]}")
    n, seconds = int(decoded[1]), float(decoded[2])
    n_passes = max(n - int(accepted[1]), 1)
    return {"s_per_token": seconds / n, "pass": n / n_passes, "n": n}


if __name__ == "__main__":
    run_program(main)
