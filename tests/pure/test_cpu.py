"""How many threads by default: on machines made of files."""

from pathlib import Path

import pytest

from cadcpp.system.cpu import Threads, choose_threads, cpu_quota

CPUS = "sys/devices/system/cpu"


def machine(root: Path, files: dict[str, object]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


def cores(*speeds: int, file: str = "cpu_capacity", threads: int = 1) -> dict[str, object]:
    """A core for each speed, with so many hyper-threads; their CPUs are numbered as Linux does."""
    found: dict[str, object] = {}
    for cpu in range(len(speeds) * threads):
        core = cpu % len(speeds)
        found[f"{CPUS}/cpu{cpu}/topology/physical_package_id"] = 0
        found[f"{CPUS}/cpu{cpu}/topology/core_id"] = core
        if speeds[core]:
            found[f"{CPUS}/cpu{cpu}/{file}"] = speeds[core]
    return found


def choose(root: Path, n_cpus: int, busy: float = 0.0) -> Threads:
    return choose_threads(root, range(n_cpus), busy)


def test_one_thread_per_core(tmp_path: Path) -> None:
    assert choose(machine(tmp_path, cores(0, 0, 0, 0)), 4) == Threads(4, "one per core")


def test_hyper_threads_share_a_core(tmp_path: Path) -> None:
    assert choose(machine(tmp_path, cores(0, 0, threads=2)), 4) == Threads(2, "one per core")


def test_a_machine_that_tells_nothing_has_a_core_for_each_cpu(tmp_path: Path) -> None:
    assert choose(tmp_path, 3).n == 3


def test_only_cores_that_are_allowed_count(tmp_path: Path) -> None:
    root = machine(tmp_path, cores(0, 0, 0, 0, threads=2))
    assert choose_threads(root, {1, 5, 2}, 0.0).n == 2  # CPU 5 is the hyper-thread of CPU 1
    root = machine(tmp_path, cores(1024, 1024, 300, 300))
    assert choose_threads(root, {2, 3}, 0.0) == Threads(2, "one per core")  # the slow ones are all there are


@pytest.mark.parametrize(
    ("speeds", "file", "n"),
    [
        pytest.param((320, 320, 320, 320, 1024, 1024, 1024, 1024), "cpu_capacity", 4, id="4 big, 4 little"),
        pytest.param((250, 250, 250, 250, 620, 620, 1024, 1024), "cpu_capacity", 4, id="2 biggest, 2 big, 4 little"),
        pytest.param((325, 325, 325, 790, 790, 790, 790, 1024), "cpu_capacity", 5, id="1 biggest, 4 big, 3 little"),
        pytest.param((400,) * 6 + (1024, 1024), "cpu_capacity", 2, id="2 big, 6 little"),
        pytest.param((1024,) * 4, "cpu_capacity", 4, id="all alike"),
        pytest.param((1_800_000,) * 4 + (2_400_000,) * 4, "cpufreq/cpuinfo_max_freq", 4, id="by clock"),
        pytest.param((1_785_600,) * 4 + (2_419_200,) * 3 + (2_841_600,), "cpufreq/cpuinfo_max_freq", 4, id="3 clocks"),
        pytest.param((5_200_000, 5_100_000, 5_300_000, 5_100_000), "cpufreq/cpuinfo_max_freq", 4, id="favoured cores"),
        pytest.param((0, 0, 1024, 1024), "cpu_capacity", 4, id="told of some only"),
    ],
)
def test_slow_cores_do_not_hold_the_fast_ones_up(tmp_path: Path, speeds: tuple[int, ...], file: str, n: int) -> None:
    found = choose(machine(tmp_path, cores(*speeds, file=file)), len(speeds))
    assert found.n == n
    assert found.why == (f"the fast ones of {len(speeds)} cores" if n < len(speeds) else "one per core")


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/a", {"a/cpu.max": "100000 100000"}, 1.0),
        ("0::/a", {"a/cpu.max": "150000 100000"}, 1.5),
        ("0::/a", {"a/cpu.max": "max 100000"}, None),
        ("0::/a/b", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "max 100000"}, 1.0),
        ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "200000 100000"}, 2.0),
        ("0::/elsewhere", {"cpu.max": "50000 100000"}, 0.5),  # a container that sees its own group as the root
        ("3:cpu:/a", {"cpu/a/cpu.cfs_quota_us": 200000, "cpu/a/cpu.cfs_period_us": 100000}, 2.0),
        ("3:cpu,cpuacct:/a", {"cpu,cpuacct/a/cpu.cfs_quota_us": 9, "cpu,cpuacct/a/cpu.cfs_period_us": 6}, 1.5),
        ("3:cpu:/a", {"cpu/a/cpu.cfs_quota_us": -1, "cpu/a/cpu.cfs_period_us": 100000}, None),
        ("3:cpu:/docker/1", {"cpu/cpu.cfs_quota_us": 100000, "cpu/cpu.cfs_period_us": 100000}, 1.0),
        ("3:cpu:/a", {}, None),
        ("0::/a", {"a/cpu.max": "nonsense"}, None),
    ],
)
def test_the_quota_of_control_groups(tmp_path: Path, groups: str, files: dict[str, object], quota: float) -> None:
    machine(tmp_path, {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}})
    assert cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(("share", "n"), [(0.5, 1), (1.0, 1), (1.9, 1), (2.0, 2), (3.5, 3), (9.0, 4)])
def test_threads_follow_the_quota(tmp_path: Path, share: float, n: int) -> None:
    quota = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": f"{int(share * 100000)} 100000"}
    found = choose(machine(tmp_path, {**cores(0, 0, 0, 0), **quota}), 4)
    assert found.n == n and ("quota" in found.why) == (n < 4)


@pytest.mark.parametrize(("busy", "n"), [(0.0, 4), (0.7, 4), (0.8, 3), (1.0, 3), (1.8, 2), (4.0, 1)])
def test_threads_leave_cores_to_others_who_keep_them_busy(tmp_path: Path, busy: float, n: int) -> None:
    found = choose(machine(tmp_path, cores(0, 0, 0, 0)), 4, busy)
    assert found.n == n and ("busy" in found.why) == (n < 4)


def test_others_may_have_the_slow_cores_and_hyper_threads(tmp_path: Path) -> None:
    assert choose(machine(tmp_path, cores(300, 300, 1024, 1024)), 4, 2.0).n == 2
    assert choose(machine(tmp_path / "other", cores(0, 0, threads=2)), 4, 1.0).n == 2
