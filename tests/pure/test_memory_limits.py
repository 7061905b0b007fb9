"""What control groups leave: version 1, version 2, nested, in a container, and none."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cadcpp.system.memory_limits import is_limited, lockable_bytes, peak_bytes, spare_bytes

MIB = 1 << 20


def device(root: Path, groups: str, files: dict[str, str | int]) -> Path:
    """A /proc and a /sys in ``root``; ``files`` by their path under /sys/fs/cgroup."""
    for path, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{p}": t for p, t in files.items()}}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{text}\n")
    return root


def v1(group: str, limit: int, used: int, cached: int) -> dict[str, str | int]:
    stat = f"cache 1\ninactive_file 1\ntotal_inactive_file {cached - 5}\ntotal_active_file 5"
    files: dict[str, str | int] = {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used, "memory.stat": stat}
    return {f"memory/{group}/{name}": text for name, text in files.items()}


def v2(group: str, used: int, cached: int, **limits: str | int) -> dict[str, str | int]:
    stat = f"anon 77\ninactive_file {cached}\nactive_file 0"
    files = {"memory.current": used, "memory.stat": stat, **{f"memory.{name}": text for name, text in limits.items()}}
    return {f"{group}/{name}": text for name, text in files.items()}


def test_version_1(tmp_path: Path) -> None:
    root = device(tmp_path, "5:cpu:/\n4:memory:/a\n0::/", v1("a", 100 * MIB, 90 * MIB, cached=30 * MIB))
    assert (is_limited(root), spare_bytes(root)) == (True, 40 * MIB)


def test_version_2(tmp_path: Path) -> None:
    root = device(tmp_path, "0::/a", v2("a", 90 * MIB, cached=30 * MIB, max=100 * MIB, high="max"))
    assert (is_limited(root), spare_bytes(root)) == (True, 40 * MIB)


def test_a_group_that_is_slowed_down_before_its_limit(tmp_path: Path) -> None:
    root = device(tmp_path, "0::/a", v2("a", 90 * MIB, cached=30 * MIB, max=100 * MIB, high=80 * MIB))
    assert spare_bytes(root) == 20 * MIB
    root = device(tmp_path, "0::/a", v2("a", 90 * MIB, cached=30 * MIB, max="max", high=80 * MIB))
    assert (is_limited(root), spare_bytes(root)) == (True, 20 * MIB)


def test_the_smallest_of_nested_groups_counts(tmp_path: Path) -> None:
    inner = v2("a/b", 10 * MIB, cached=0, max=60 * MIB)
    root = device(tmp_path, "0::/a/b", {**inner, **v2("a", 90 * MIB, cached=0, max=100 * MIB)})
    assert spare_bytes(root) == 10 * MIB


def test_a_limit_lowered_beneath_what_is_used(tmp_path: Path) -> None:
    root = device(tmp_path, "0::/a", v2("a", 90 * MIB, cached=10 * MIB, max=50 * MIB))
    assert spare_bytes(root) == -30 * MIB


def test_in_a_container_that_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    """/proc names the group as the host does, /sys shows it at the top."""
    root = device(tmp_path, "4:memory:/docker/0123", v1(".", 100 * MIB, 90 * MIB, cached=30 * MIB))
    assert spare_bytes(root) == 40 * MIB


@pytest.mark.parametrize("groups", ["0::/", "0::/a", "4:memory:/a", "nonsense::"])
def test_no_limit(tmp_path: Path, groups: str) -> None:
    none = {**v1("a", 0x7FFFFFFFFFFFF000, 90, cached=30), **v2("a", 90, cached=30, max="max", high="max")}
    root = device(tmp_path, groups, none if groups != "nonsense::" else {})
    assert (is_limited(root), spare_bytes(root) > 0) == (False, True)


@pytest.mark.skipif(sys.platform != "linux", reason="counted by Linux")
def test_the_peak_is_of_this_process_and_not_of_the_one_that_started_it() -> None:
    held = np.ones(40 << 20, np.float64)  # 320 MiB
    command = [sys.executable, "-c", "from cadcpp.system.memory_limits import peak_bytes; print(peak_bytes())"]
    assert int(subprocess.run(command, capture_output=True, check=True).stdout) < held.nbytes < peak_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's capabilities")
@pytest.mark.parametrize(
    ("capabilities", "ids", "may"),
    [
        pytest.param("000001ffffffffff", "0 0 4294967295", True, id="root"),
        pytest.param("000001ffffffbfff", "0 0 4294967295", False, id="root without CAP_IPC_LOCK"),
        pytest.param("00000000a80425fb", "0 0 4294967295", False, id="root in a container"),
        pytest.param("0000000000004000", "0 0 4294967295", True, id="a user with CAP_IPC_LOCK"),
        pytest.param("0000000000000000", "0 0 4294967295", False, id="a user"),
        pytest.param("000001ffffffffff", "0 1000 1", False, id="root of a user namespace"),
        pytest.param(None, None, False, id="nobody tells"),
    ],
)
def test_what_may_be_locked_goes_by_the_right_to_and_not_by_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capabilities: str | None, ids: str | None, may: bool
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (65536, 65536))
    (tmp_path / "proc/self").mkdir(parents=True)
    if capabilities is not None and ids is not None:
        (tmp_path / "proc/self/status").write_text(f"Name:\tx\nCapEff:\t{capabilities}\nVmHWM: 1 kB\n")
        (tmp_path / "proc/self/uid_map").write_text(f"  {ids}\n")
    assert lockable_bytes(tmp_path) == (1 << 60 if may else 65536)
