"""The catalogue of pairs that fit together, read from the package's own catalog.toml."""

import sys
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from cadcpp.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One model file on the hub."""

    name: str
    repository: str
    file: str
    licence: str
    bytes: int | None = None  # exact; None: not known before it is asked for
    about_gb: float | None = None

    @property
    def n_bytes(self) -> int:
        """The size, exact or about."""
        return self.bytes or int((self.about_gb or 0) * 1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A verifier and its draft; ``ram_gb`` is for which memory, least and most, the pair makes sense."""

    verifier: Entry
    draft: Entry | None  # None: its family has none that is small enough
    ram_gb: tuple[float, float]

    @property
    def models(self) -> list[Entry]:
        """What there is to fetch."""
        return [model for model in (self.draft, self.verifier) if model is not None]

    def suits(self, ram_bytes: int) -> bool:
        """Whether it makes sense in this much memory."""
        return self.ram_gb[0] * 1e9 <= ram_bytes <= self.ram_gb[1] * 1e9


@cache
def pairs() -> dict[str, Pair]:
    """All pairs, by the verifier's name."""
    data = tomllib.loads((files("cadcpp.models") / "catalog.toml").read_text("utf-8"))
    models = {name: Entry(name=name, **values) for name, values in data["models"].items()}
    return {
        name: Pair(verifier=models[name], draft=models.get(values.get("draft")), ram_gb=tuple(values["ram_gb"]))
        for name, values in data["pairs"].items()
    }


def find(name: str) -> list[Entry]:
    """What ``name`` asks for: a pair's two models, or a single model. Raises ConfigError."""
    known = pairs()
    if name in known:
        return known[name].models
    single = {model.name: model for pair in known.values() for model in pair.models}
    if name in single:
        return [single[name]]
    raise ConfigError(
        f"no model {name!r} in the catalogue: see `cadcpp models list`, or name a repository and a file, such as "
        f"{known['qwen3-8b'].verifier.repository} {known['qwen3-8b'].verifier.file}"
    )
