"""What can be changed while a chat runs."""

from dataclasses import dataclass, fields, replace
from typing import Any

from cadcpp.config import SamplingConfig
from cadcpp.errors import ConfigError

_FIELDS = {field.name: field.type for field in fields(SamplingConfig)}
_KINDS: dict[str, type[int] | type[float]] = {str(kind): kind for kind in (int, float)}
_SPELLINGS = {"temp": "temperature", "num_predict": "n", "n_predict": "n", "max_tokens": "n"}


@dataclass(slots=True)
class Settings:
    """How replies are drawn, and how they are shown."""

    sampling: SamplingConfig
    n: int  # tokens of a reply at most
    show: bool = False  # tokens in the colour of their origin
    footer: bool = True  # a line of figures under every reply

    def set(self, name: str, value: str) -> None:
        """Change one setting by its name. Raises ConfigError and changes nothing if that cannot be."""
        key = name.lower().lstrip("-").replace("-", "_")
        key = _SPELLINGS.get(key, key)
        if key == "n":
            self.n = _positive(_number(name, value, int))
        elif key in _FIELDS:
            kind = _KINDS.get(str(_FIELDS[key]))
            change: dict[str, Any] = {key: _number(name, value, kind) if kind else value}
            self.sampling = replace(self.sampling, **change)
        else:
            raise ConfigError(f"no setting {name}: there are n, {', '.join(_FIELDS)}")

    def describe(self) -> str:
        """A line per number."""
        values = {"n": self.n} | {name: getattr(self.sampling, name) for name in _FIELDS}
        return "\n".join(f"{name:16} {value}" for name, value in values.items())


def _number(name: str, value: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(value)
    except ValueError:
        raise ConfigError(f"{name} takes {'a whole number' if kind is int else 'a number'}, got {value!r}") from None


def _positive(n: int | float) -> int:
    if n < 1:
        raise ConfigError(f"n must be at least 1, got {n}")
    return int(n)
