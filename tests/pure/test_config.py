"""Settings refuse, where they are made, every value that could not work later."""

import math
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from cadcpp.config import MAX_THREADS, SamplingConfig, SessionConfig
from cadcpp.errors import ConfigError
from cadcpp.tree.limits import GrowthOptions, TreeLimits

GOOD: list[tuple[Any, str, list[Any]]] = [
    (SamplingConfig, "temperature", [0.0, 0.8, 100.0]),
    (SamplingConfig, "top_k", [0, 1, 2**31 - 1]),
    (SamplingConfig, "top_p", [0.01, 1.0]),
    (SamplingConfig, "min_p", [0.0, 1.0]),
    (SamplingConfig, "repeat_penalty", [0.5, 1.0, 2.0]),
    (SamplingConfig, "repeat_last_n", [0, 64]),
    (SamplingConfig, "seed", [0, 2**32 - 1]),
    (TreeLimits, "max_size", [1, 256]),
    (GrowthOptions, "width", [1, 256]),
    (GrowthOptions, "focus", [0.0, 1.0]),
    (GrowthOptions, "cutoff", [0.0, 0.5]),
    (SessionConfig, "n_ctx", [2, 10**9]),
    (SessionConfig, "n_batch", [1, 4096]),
    (SessionConfig, "n_threads", [None, 1, MAX_THREADS]),
]
BAD: list[tuple[Any, str, list[Any]]] = [
    (SamplingConfig, "temperature", [-1.0, math.nan, math.inf]),
    (SamplingConfig, "top_k", [-1, 2**31]),
    (SamplingConfig, "top_p", [0.0, -0.5, 2.0, math.nan]),
    (SamplingConfig, "min_p", [-1.0, 1.5, math.nan]),
    (SamplingConfig, "repeat_penalty", [0.0, -1.0, math.nan, math.inf]),
    (SamplingConfig, "repeat_last_n", [-1]),
    (SamplingConfig, "seed", [-1, 2**32]),
    (TreeLimits, "max_size", [0, -1, 257]),
    (GrowthOptions, "width", [0, 257]),
    (GrowthOptions, "focus", [-0.1, 1.1, math.nan]),
    (GrowthOptions, "cutoff", [-0.1, 1.0, math.nan]),
    (SessionConfig, "n_ctx", [1, 0, -1]),
    (SessionConfig, "n_batch", [0, -1]),
    (SessionConfig, "n_threads", [0, -1, MAX_THREADS + 1]),
]


def flat(table: list[tuple[Any, str, list[Any]]]) -> list[Any]:
    return [pytest.param(cls, name, value, id=f"{name}={value}") for cls, name, values in table for value in values]


@pytest.mark.parametrize(("cls", "name", "value"), flat(GOOD))
def test_a_value_within_the_limits_is_kept(cls: Any, name: str, value: Any) -> None:
    assert getattr(cls(**{name: value}), name) == value


@pytest.mark.parametrize(("cls", "name", "value"), flat(BAD))
def test_a_value_beyond_the_limits_is_named_in_one_line(cls: Any, name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        cls(**{name: value})
    message = str(caught.value)
    shown = {"max_size": "max-tree-size"}.get(name, name.removeprefix("n_").replace("_", "-"))
    assert message.startswith(f"{shown} must be ") and message.endswith(f"got {value}") and "\n" not in message


def test_settings_are_frozen_and_take_only_names() -> None:
    with pytest.raises(FrozenInstanceError):
        SamplingConfig().seed = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        SamplingConfig(0.5)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        SamplingConfig(temprature=0.5)  # type: ignore[call-arg]
