"""Where a user's files are, who may have no home."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cadcpp.system.user_dirs import cache_dir, state_dir

DIRS = [(state_dir, "XDG_STATE_HOME", ".local/state"), (cache_dir, "XDG_CACHE_HOME", ".cache")]


@pytest.mark.parametrize(("find", "variable", "default"), DIRS)
def test_a_user_s_places(
    monkeypatch: pytest.MonkeyPatch, find: Callable[[], Path | None], variable: str, default: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for value in ("", "relative"):
        monkeypatch.setenv(variable, value)
        assert find() == Path("/home/me") / default / "cadcpp"
    monkeypatch.setenv(variable, "/else/where")
    assert find() == Path("/else/where/cadcpp")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="users are numbers")
@pytest.mark.parametrize("home", [None, "relative"])
@pytest.mark.parametrize(("find", "variable", "default"), DIRS)
def test_a_user_without_a_home_has_none(
    monkeypatch: pytest.MonkeyPatch, find: Callable[[], Path | None], variable: str, default: str, home: str | None
) -> None:
    monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", home)
    assert find() is None
