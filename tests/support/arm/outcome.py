"""What a part said on a processor; kept if it passed, for as long as nothing changes that it depends on."""

import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.support.arm.parts import Part
from tests.support.arm.processors import PLACE, Processor

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Outcome:
    """An exit code, all that was printed, and how long it took, None if that was another time."""

    code: int
    said: str
    seconds: float | None = None


def kept(processor: Processor, part: Part) -> Outcome | None:
    """Of an earlier run."""
    path = _path(processor, part)
    return Outcome(0, path.read_text("utf-8")) if path.exists() else None


def run(processor: Processor, part: Part) -> Outcome:
    """With nothing remembered of other runs."""
    path, start = _path(processor, part), time.monotonic()  # of the files as they are now
    done = _python(processor, part.arguments)
    if not done.returncode:
        _keep(path, done.stdout)
    return Outcome(abs(done.returncode), done.stdout, time.monotonic() - start)


def _python(processor: Processor, arguments: Iterable[str]) -> "subprocess.CompletedProcess[str]":
    environment = processor.environment()
    path = os.pathsep.join([str(ROOT), environment["PYTHONPATH"]])
    with tempfile.TemporaryDirectory() as cache:
        own = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "XDG_CACHE_HOME": cache}
        return subprocess.run(
            [*processor.python(), *arguments],
            env={**os.environ, **environment, **own},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def _keep(path: Path, said: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (half := path.with_suffix(".part")).write_text(said, "utf-8")
    half.rename(path)


def _path(processor: Processor, part: Part) -> Path:
    made_of = hashlib.sha256(repr((version("llama-cpp-python"), processor, part)).encode())
    files = sorted(path for pattern in ("cadcpp/**/*.py", *part.files) for path in ROOT.glob(pattern))
    for path in files:
        made_of.update(path.read_bytes())
    return PLACE / "outcomes" / f"{processor.name}-{part.name}-{made_of.hexdigest()[:8]}.txt"
