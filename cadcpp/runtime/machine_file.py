"""What was found out on this machine, kept until the library, the processor or the settings change."""

import hashlib
import json
import os
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from cadcpp.errors import ToolError
from cadcpp.native.lib import api, library_files
from cadcpp.util.files import new_file

_TELLING = ("flags", "features", "model name", "cpu part")  # lines that tell one kind of processor from another
_MOST = 64  # entries of a file


class MachineFile:
    """Values in terms of JSON by facts, in a file of a user's folder; a user without a home keeps none."""

    def __init__(self, folder: Path | None, name: str, most: int = _MOST) -> None:
        """It has ``most`` entries; then the oldest goes."""
        self._path, self._most = folder / name if folder else None, most

    def find(self, facts: object) -> tuple[bool, Any]:
        """Whether there is a value for ``facts`` on this machine, and which."""
        known, key = self._read(), _key(facts)
        return key in known, known.get(key)

    def keep(self, facts: object, value: Any) -> None:
        """A disk that takes no more is no fault: the same is found out at the next start."""
        if self._path is None:
            return
        known, key = self._read(), _key(facts)
        known.pop(key, None)
        kept = dict([*known.items(), (key, value)][-self._most :])
        with suppress(ToolError), new_file(self._path) as new:
            new.write_text(json.dumps(kept))

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(self._path.read_text("utf-8")) if self._path else {}
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def _key(facts: object) -> str:
    """All that a value rests on."""
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in library_files()]
    machine = platform.machine(), _processor(), api.llama_print_system_info().decode()
    settings = {name: value for name, value in os.environ.items() if name.startswith(("GGML_CPU_", "OMP_"))}
    return hashlib.sha256(json.dumps((files, machine, settings, facts), sort_keys=True).encode()).hexdigest()


@cache
def _processor() -> list[str]:
    """What the kernel says of the processors, but for how fast they are just now."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        return sorted({line for line in lines if line.lower().startswith(_TELLING)})
    return [platform.processor()]
