"""What the doctor finds, on devices made of files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cadcpp.cli import diagnose, main
from cadcpp.cli.diagnose import Finding, examine

UNITS = "AVX2 = 1 | F16C = 1 | FMA = 1 |"


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A device on which all is well; its root, in which `models` is."""
    write(tmp_path, "proc/cpuinfo", "flags : fma avx2 f16c")
    write(tmp_path, "proc/meminfo", "MemTotal: 4000000 kB\nSwapTotal: 100000 kB\n")
    write(tmp_path, "models/a.gguf", "x")
    monkeypatch.setattr(diagnose, "available_bytes", lambda: 2_000_000_000)
    monkeypatch.setattr(diagnose, "lockable_bytes", lambda root: 1 << 60)
    monkeypatch.setattr(diagnose, "disk_bytes_per_s", lambda path: 4e8)
    starts(monkeypatch, 0, UNITS)
    for name in ("OMP_WAIT_POLICY", "GGML_CPU_TILED_MM"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def starts(
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    out: str,
    err: str = "",
    probed: tuple[int, str] = (0, ""),
    rpc: str = "",
) -> None:
    """What the process says that loads llama.cpp, the one that computes with it, and how to get RPC."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        results = {"probe": (*probed, err), "rpc": (0, f"{rpc}\n", "")}
        return subprocess.CompletedProcess(
            [], *next((results[w] for w in results if w in command[-1]), (code, out, err))
        )

    monkeypatch.setattr(subprocess, "run", run)


def complaints(root: Path) -> list[Finding]:
    return [finding for finding in examine(root / "models", root) if finding.state != "ok"]


def only(root: Path) -> Finding:
    (finding,) = complaints(root)
    assert finding.remedy
    return finding


def test_a_healthy_device(healthy: Path) -> None:
    assert complaints(healthy) == []


def test_a_build_that_leaves_units_unused(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts(monkeypatch, 0, "AVX2 = 1 | FMA = 1 |")
    assert "F16C" in only(healthy).what and "AVX2" not in only(healthy).what


@pytest.mark.parametrize(("code", "word"), [(-4, "SIGILL"), (1, "no such library")])
def test_a_build_that_does_not_run(healthy: Path, monkeypatch: pytest.MonkeyPatch, code: int, word: str) -> None:
    starts(monkeypatch, code, "", "Traceback\nImportError: no such library")
    assert only(healthy).state == "wrong" and word in only(healthy).what


@pytest.mark.parametrize(("code", "word"), [(-4, "computes and is ended by SIGILL"), (1, "no such operation")])
def test_a_build_that_does_not_compute(healthy: Path, monkeypatch: pytest.MonkeyPatch, code: int, word: str) -> None:
    starts(monkeypatch, 0, UNITS, "Traceback\nNativeError: no such operation", probed=(code, ""))
    assert only(healthy).state == "wrong" and word in only(healthy).what


def test_a_build_without_rpc(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts(monkeypatch, 0, UNITS, rpc="CMAKE_ARGS=... pip install llama-cpp-python")
    assert only(healthy) == Finding("note", only(healthy).what, "CMAKE_ARGS=... pip install llama-cpp-python")
    assert "without RPC" in only(healthy).what


@pytest.mark.parametrize(
    ("lacking", "word"), [("layers", "its layers:"), ("layers routers", "its layers and routers:")]
)
def test_a_build_that_reports_nothing(healthy: Path, monkeypatch: pytest.MonkeyPatch, lacking: str, word: str) -> None:
    starts(monkeypatch, 0, UNITS, probed=(0, lacking + "\n"))
    assert only(healthy).state == "slow" and word in only(healthy).what


@pytest.mark.parametrize(
    ("name", "value", "state"), [("OMP_WAIT_POLICY", "PASSIVE", "slow"), ("GGML_CPU_TILED_MM", "1", "slow")]
)
def test_settings_that_do_harm(
    healthy: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, state: str
) -> None:
    monkeypatch.setenv(name, value)
    assert (only(healthy).state, only(healthy).remedy) == (state, f"unset {name}")


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("available_bytes", 400_000_000, "400 MB of memory"),
        ("lockable_bytes", 8_000_000, "8.00 MB may be locked"),
        ("disk_bytes_per_s", 4e7, "reads 40.0 MB a second"),
    ],
)
def test_little_of_something(
    healthy: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: float, word: str
) -> None:
    monkeypatch.setattr(diagnose, name, lambda *_: value)
    assert word in only(healthy).what


def test_no_swap(healthy: Path) -> None:
    write(healthy, "proc/meminfo", "SwapTotal: 0 kB\n")
    assert "no swap" in only(healthy).what


def test_a_processor_kept_slow(healthy: Path) -> None:
    folder = "sys/devices/system/cpu/cpu0/cpufreq"
    write(healthy, f"{folder}/scaling_governor", "powersave\n")
    write(healthy, f"{folder}/scaling_driver", "intel_pstate\n")
    assert complaints(healthy) == []
    write(healthy, f"{folder}/scaling_driver", "cpufreq-dt\n")
    assert "lowest clock" in only(healthy).what


def test_a_short_read_ahead(healthy: Path) -> None:
    device = healthy.stat().st_dev
    write(healthy, f"sys/dev/block/{os.major(device)}:{os.minor(device)}/queue/read_ahead_kb", "16\n")
    assert "read-ahead is 16 KiB" in only(healthy).what


def test_storage_without_holes(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.stat_result((0,) * 10, {"st_blocks": 1 << 20})
    monkeypatch.setattr(os, "fstat", lambda fd: full)
    assert "no holes" in only(healthy).what and only(healthy).what.startswith("loading reads all weights")


def test_a_missing_client(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "cadcpp[pull]" in only(healthy).remedy


def test_the_command_fails_if_something_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    for state, code in (("slow", 0), ("wrong", 1)):
        monkeypatch.setattr(diagnose, "examine", lambda models, state=state: [Finding(state, "it", "this")])
        result = CliRunner().invoke(main, ["doctor"])
        assert (result.exit_code, result.stdout) == (code, f"{state:<6} it\n       -> this\n")
