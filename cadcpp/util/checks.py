"""Checks of settings."""

from cadcpp.errors import ConfigError


def check(ok: bool, name: str, value: object, wanted: str) -> None:
    if not ok:
        raise ConfigError(f"{name} must be {wanted}, got {value}")
