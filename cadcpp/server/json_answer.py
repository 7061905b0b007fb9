"""Answers as JSON; the class's figures may be numpy's."""

import json
from typing import Any

from starlette.responses import JSONResponse


def as_json(content: Any) -> bytes:
    """In UTF-8. Raises TypeError for what is no JSON."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> Any:
    """A number that numpy made."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON")


class JSONAnswer(JSONResponse):
    """A whole answer."""

    def render(self, content: Any) -> bytes:
        return as_json(content)
