"""Parameters out of a request's JSON: null is the same as none, and what is wrong names the parameter."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from cadcpp.errors import ConfigError


class BadParameter(ConfigError):
    """A request's parameter that cannot be served."""

    def __init__(self, param: str, what: str) -> None:
        super().__init__(f"{param}: {what}")
        self.param = param


class Unsupported(BadParameter):
    """A parameter that could be served, but not with this model."""


class Fields:
    """The parameters of one request, or of an object in it."""

    def __init__(self, data: Any, within: str = "") -> None:
        if not isinstance(data, Mapping):
            raise BadParameter(within or "the body", f"must be a JSON object, got {_name(data)}")
        self._data, self._within = data, within

    def __contains__(self, name: str) -> bool:
        return self._data.get(name) is not None

    def get(self, name: str) -> Any:
        """The value as it is; None if it is missing or null."""
        return self._data.get(name)

    def renamed(self, aliases: Mapping[str, str]) -> "Fields":
        """The same with parameters by their own names, where they have come under other ones."""
        own = {name: value for name, value in self._data.items() if value is not None}
        return Fields({aliases[name]: value for name, value in own.items() if name in aliases} | own, self._within)

    def with_(self, **more: Any) -> "Fields":
        """The same with other values of some."""
        return Fields({**self._data, **more}, self._within)

    def bad(self, name: str, what: str) -> BadParameter:
        return BadParameter(self._place(name), what)

    def _place(self, name: str) -> str:
        return f"{self._within}.{name}" if self._within else name

    def unsupported(self, name: str, what: str) -> Unsupported:
        return Unsupported(self._place(name), what)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._data.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.bad(name, f"must be true or false, got {_name(value)}")
        return value

    def text(self, name: str) -> str | None:
        value = self._data.get(name)
        if value is not None and not isinstance(value, str):
            raise self.bad(name, f"must be a string, got {_name(value)}")
        return value

    def integer(self, name: str, low: int | None = None, high: int | None = None) -> int | None:
        value = self.number(name, low, high)
        if value is not None and value != int(value):
            raise self.bad(name, f"must be a whole number, got {value}")
        return None if value is None else int(value)

    def number(self, name: str, low: float | None = None, high: float | None = None) -> float | None:
        value = self._data.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise self.bad(name, f"must be a number, got {_name(value)}")
        if low is not None and value < low:
            raise self.bad(name, f"must be at least {low}, got {value}")
        if high is not None and value > high:
            raise self.bad(name, f"must be at most {high}, got {value}")
        return value

    def object(self, name: str) -> "Fields":
        """An object in it; an empty one if there is none."""
        value = self._data.get(name)
        return Fields({} if value is None else value, self._place(name))

    def strings(self, name: str) -> list[str]:
        """A string or a list of them, none of them empty."""
        value = self._data.get(name)
        found = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise self.bad(name, "must be a string or a list of strings")
        if "" in found:
            raise self.bad(name, "an empty string would end every text before it begins")
        return found


def _name(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")
