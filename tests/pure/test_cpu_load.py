"""What others compute: on a machine made of files, with a clock of its own."""

from pathlib import Path

import pytest

from cadcpp.system.cpu_load import CpuLoad

STAT = "cpu 9 9 9 9 9 9 9 0\ncpu0 {0} 0 {1} 500 0 0 0 0\ncpu1 7 {0} 0 500 0 0 0 0\ncpu2 {0} 0 0 0 0 0 0 0\nintr 1 2 3\n"


class Machine:
    """Two CPUs that are ours, and one that is not; ticks of a hundredth of a second."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.now, self.own = root, 0.0, 0.0
        (root / "proc/self/task/1").mkdir(parents=True)
        monkeypatch.setattr("os.sysconf", lambda _: 100)
        monkeypatch.setattr("time.sleep", self.sleep)
        monkeypatch.setattr("time.perf_counter", lambda: self.now)
        monkeypatch.setattr("cadcpp.system.cpu_load._own_seconds", lambda: self.own)
        self.later(0.0)

    def later(self, seconds: float, used: float = 0.0, own: float = 0.0, waited: float = 0.0) -> None:
        """So much later; since the start others and we have used so much of our CPUs, and a thread has waited."""
        self.now, self.own = self.now + seconds, own
        ticks = int(100 * (used + own))
        (self.root / "proc/stat").write_text(STAT.format(ticks // 2, ticks - ticks // 2))
        (self.root / "proc/self/task/1/schedstat").write_text(f"123 {int(waited * 1e9)} 7\n")

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def load(self) -> CpuLoad:
        return CpuLoad([0, 1], self.root)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_what_others_compute_is_told_by_the_system(machine: Machine) -> None:
    """Time of processes that give way (the second number) is none, nor is that of a CPU that is not ours."""
    load = machine.load()
    machine.later(0.5, used=0.5)
    assert load.busy() == pytest.approx(1.0)
    machine.later(1.0, used=0.5)
    assert load.busy() == 0.0


def test_what_we_compute_is_not_others(machine: Machine) -> None:
    load = machine.load()
    machine.later(1.0, used=0.3, own=1.5)
    assert load.busy() == pytest.approx(0.3)


def test_whoever_shares_a_core_with_a_thread_that_waits_would_use_more_of_it(machine: Machine) -> None:
    load = machine.load()
    machine.later(1.0, used=0.5, own=1.5, waited=0.5)
    assert load.busy() == pytest.approx(1.0)
    machine.later(1.0, used=0.5, own=3.0, waited=2.5)
    assert load.busy() == 0.0, "threads that wait for each other have no neighbour"


def test_too_short_a_look_goes_on(machine: Machine) -> None:
    load = machine.load()
    machine.later(0.01)
    assert load.busy() == 0.0 and machine.now == pytest.approx(0.2)


def test_where_nobody_tells_nobody_is_busy(machine: Machine) -> None:
    (machine.root / "proc/stat").unlink()
    (machine.root / "proc/self/task/1/schedstat").unlink()
    load = machine.load()
    machine.later(1.0, own=1.0)
    (machine.root / "proc/stat").unlink()
    assert load.busy() == 0.0
