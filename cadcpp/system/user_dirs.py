"""Where a user's files are, by the XDG base directories."""

import os
from pathlib import Path


def state_dir() -> Path | None:
    """``$XDG_STATE_HOME/cadcpp``, by default under ``~/.local/state``; None for a user without a home."""
    return _dir("XDG_STATE_HOME", ".local/state")


def cache_dir() -> Path | None:
    """``$XDG_CACHE_HOME/cadcpp``, by default under ``~/.cache``; None for a user without a home."""
    return _dir("XDG_CACHE_HOME", ".cache")


def _dir(variable: str, default: str) -> Path | None:
    base = Path(os.environ.get(variable, ""))
    if base.is_absolute():
        return base / "cadcpp"
    try:
        home = Path.home()
    except RuntimeError:  # neither HOME nor an entry among the users, as in many containers
        return None
    return home / default / "cadcpp" if home.is_absolute() else None
