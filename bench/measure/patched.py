"""A library's function replaced for a while, where the library offers no argument for what is wanted."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def patched(module: ModuleType, replacements: Mapping[str, Any]) -> Iterator[None]:
    """Inside, the module's names stand for other values. `unittest.mock` would take megabytes that a study counts."""
    originals = {name: getattr(module, name) for name in replacements}
    try:
        for name, value in replacements.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in originals.items():
            setattr(module, name, value)
