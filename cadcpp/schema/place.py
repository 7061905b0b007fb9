"""Where in a schema something is, and what is wrong there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cadcpp.errors import ConfigError

Schema = bool | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """A JSON pointer into a schema."""

    path: str = "#"

    def at(self, *keys: str | int) -> "Place":
        parts = (str(key).replace("~", "~0").replace("/", "~1") for key in keys)
        return Place("/".join([self.path, *parts]))


class SchemaError(ConfigError):
    """A schema that cannot be enforced, and is therefore refused."""

    def __init__(self, place: Place, what: str) -> None:
        super().__init__(f"the JSON schema cannot be enforced: {place.path} {what}")
        self.place = place.path


Inside = Callable[[Any, Place], str | None]  # the rule of what a container holds; None if it can hold nothing
