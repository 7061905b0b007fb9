"""What was found out about kernels on this machine, kept until the library, the processor or the settings change."""

import hashlib
import json
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cadcpp.errors import ToolError
from cadcpp.native.lib import api, library_files
from cadcpp.runtime.stages import finish
from cadcpp.system.user_dirs import cache_dir
from cadcpp.util.files import new_file

_TELLING = ("flags", "features", "model name", "cpu part")  # lines that tell one kind of processor from another


def remembered(facts: object, find: Callable[[], Any]) -> Any:
    """What was found before of ``facts`` on the same machine, else what ``find`` finds now; both in terms of JSON."""
    path, key = _path(), _key(facts)
    known = _read(path) if path else {}
    if key in known:
        return known[key]
    # On the thread that computes: a second team of OpenMP's would slow the first one.
    found = finish(find)
    if path is None:
        return found
    with suppress(ToolError), new_file(path) as new:  # a disk that takes no more costs a second at the next start
        new.write_text(json.dumps(_read(path) | {key: found}))
    return found


def _path() -> Path | None:
    """None for a user without a home."""
    folder = cache_dir()
    return folder / "kernels.json" if folder else None


def _read(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _key(facts: object) -> str:
    """All that a verdict rests on."""
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in library_files()]
    machine = platform.machine(), _processor(), api.llama_print_system_info().decode()
    settings = {name: value for name, value in os.environ.items() if name.startswith(("GGML_CPU_", "OMP_"))}
    return hashlib.sha256(json.dumps((files, machine, settings, facts), sort_keys=True).encode()).hexdigest()


def _processor() -> list[str]:
    """What the kernel says of the processors, but for how fast they are just now."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        return sorted({line for line in lines if line.lower().startswith(_TELLING)})
    return [platform.processor()]
