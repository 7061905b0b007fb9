"""The banner, where a system lacks something."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cadcpp.cli.chat.banner import screen
from cadcpp.config import SessionConfig
from cadcpp.gguf.header import read_header
from cadcpp.residency.memory_plan import make_plan


@pytest.mark.parametrize("limited", ["", "loading reads all weights: no place takes 1 MiB"])
def test_what_streaming_cannot_do_is_in_the_banner(tiny: Callable[..., Path], limited: str) -> None:
    path = tiny("llama", n_layer=8, n_embd=256, n_head=4, n_head_kv=2, n_ff=4096)
    header = read_header(path)
    fixed = make_plan(header, None, ram=1 << 40, n_ctx=256, rows=64).fixed
    plan = make_plan(header, None, ram=fixed + header.n_bytes // 2, n_ctx=256, rows=64)
    assert plan.streams
    config = SessionConfig(n_ctx=256, n_threads=1, threads_because="a quota")
    shown = dict(
        line.split(maxsplit=1) for line in screen(replace(plan, limited=limited), config, (path, None)).splitlines()
    )
    assert shown.get("limited", "") == limited
    assert shown["threads"] == "1: a quota"
