"""What is wrong or slow about an installation and the device under it, and what helps."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cadcpp.errors import ModelError
from cadcpp.gguf.header import Header, Part, read_header
from cadcpp.system.cpu import choose_threads
from cadcpp.system.disk_speed import disk_bytes_per_s
from cadcpp.system.mapping import has_maps, is_shareable, mount_of, sharing
from cadcpp.system.memory_limits import available_bytes, lockable_bytes
from cadcpp.system.stub import foreseen_limits
from cadcpp.system.user_dirs import cache_dir, state_dir
from cadcpp.util.byte_size import format_size

_LITTLE_BYTES = 700_000_000  # less leaves a verifier worth the trouble nothing to stream through
_SLOW_DISK = 100_000_000  # bytes per second; SD cards are slower
_LARGE_HEADER, _ZEROS = 16 << 20, Path("/dev/zero")  # a vocabulary of 250,000 tokens
_READ_AHEAD_KB = 128  # the kernel's default
_REBUILD = "CMAKE_ARGS=-DGGML_NATIVE=ON pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python "
_REBUILD += "llama-cpp-python"
_TESTED = "0.3.36"  # a version that reports its layers
# What the processor has, as the kernel calls it, and the name under which llama.cpp tells that it uses it.
_UNITS = {"avx2": "AVX2", "fma": "FMA", "f16c": "F16C", "asimddp": "DOTPROD", "i8mm": "MATMUL_INT8"}

State = Literal["ok", "note", "slow", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    state: State
    what: str
    remedy: str = ""


def examine(models: Path, root: Path = Path("/")) -> Iterator[Finding]:
    """Look at everything; ``models`` is where models are, ``root`` where /proc and /sys are."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        lambda: _llama_cpp(root),
        _hub,
        _environment,
        _home,
        lambda: _threads(root),
        _memory,
        lambda: _locking(root),
        lambda: _swap(root),
        lambda: _loading(models),
        lambda: _disk(models),
        lambda: _read_ahead(models, root),
        lambda: _governor(root),
    )
    for look in looks:
        try:
            yield from look()
        except (OSError, ValueError) as error:  # such as a folder that is not for us to read
            yield Finding("note", f"not all can be looked at: {error}", "ask whoever runs this system, or try as root")


def _llama_cpp(root: Path) -> Iterator[Finding]:
    binding = _binding(root)
    yield binding
    if binding.state != "wrong":
        yield _reports()
        yield _workers()


def _binding(root: Path) -> Finding:
    done = _python("from cadcpp.native.lib import api; print(api.llama_print_system_info().decode())")
    return _broken(done, "llama.cpp starts", "llama.cpp does not load") or _units(done.stdout, root)


def _python(code: str) -> "subprocess.CompletedProcess[str]":
    """Run code in a process of its own, which a build for another processor may end."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, errors="replace")


def _broken(done: "subprocess.CompletedProcess[str]", works: str, fails: str) -> Finding | None:
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return Finding("wrong", f"{works} and is ended by {name}: it was built for another processor", _REBUILD)
    if done.returncode:
        return Finding("wrong", f"{fails}: {_last_line(done.stderr)}", "pip install --force-reinstall llama-cpp-python")
    return None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


def _reports() -> Finding:
    """A pass through a tiny model of the llama architecture; others are watched when they are first used."""
    done = _python("from cadcpp.models.probe import unreported; print(*unreported())")
    if done.returncode == 1 and (reason := _last_line(done.stderr)).startswith("OSError"):
        remedy = "make room in memory or in TMPDIR, or raise the limit on file sizes: ulimit -f"
        return Finding("note", f"llama.cpp cannot be tried: {reason}", remedy)
    if broken := _broken(done, "llama.cpp computes", "llama.cpp does not compute"):
        return broken
    if lacking := done.stdout.split():
        shown = f"llama.cpp does not report its {' and '.join(lacking)}: what exceeds memory is read by page faults"
        return Finding("slow", shown, f"pip install llama-cpp-python=={_TESTED}")
    return Finding("ok", "llama.cpp reports its layers and routers, which streaming rests on")


def _workers() -> Finding:
    """Whether layers may go to other machines, and those of others come here."""
    if command := _python("from cadcpp.native.rpc import remedy; print(remedy())").stdout.strip():
        return Finding(
            "note", "llama.cpp was built without RPC: there are no --workers, and no `cadcpp worker`", command
        )
    return Finding("ok", "llama.cpp has RPC, for layers on other machines")


def _units(info: str, root: Path) -> Finding:
    flags = set((_read(root / "proc/cpuinfo") or "").split())
    unused = [name for flag, name in _UNITS.items() if flag in flags and f"{name} = 1" not in info]
    if unused:
        return Finding("slow", f"llama.cpp was built without {', '.join(unused)}, which the processor has", _REBUILD)
    return Finding("ok", "llama.cpp loads and uses what the processor has")


def _hub() -> Iterator[Finding]:
    if importlib.util.find_spec("huggingface_hub") is None:
        yield Finding("note", "models cannot be pulled: huggingface_hub is missing", "pip install 'cadcpp[pull]'")
    else:
        yield Finding("ok", "models can be pulled")


def _environment() -> Iterator[Finding]:
    if os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive":
        yield Finding("slow", "OMP_WAIT_POLICY=passive makes a draft take twice as long", "unset OMP_WAIT_POLICY")
    if os.environ.get("GGML_CPU_TILED_MM", "0") != "0":
        yield Finding(
            "slow",
            "GGML_CPU_TILED_MM is set: with K-quants, passes of a few rows may have to be filled up to stay exact",
            "unset GGML_CPU_TILED_MM",
        )


def _home() -> Iterator[Finding]:
    if state_dir() is None or cache_dir() is None:
        shown = "there is no home directory: chats are not kept, and kernels are tried at every start"
        yield Finding("note", shown, "export HOME=DIRECTORY")


def _threads(root: Path) -> Iterator[Finding]:
    threads = choose_threads(root)
    yield Finding("ok", f"{threads.n} thread{'s' if threads.n > 1 else ''} by default: {threads.why}")


def _memory() -> Iterator[Finding]:
    free = available_bytes()
    if free < _LITTLE_BYTES:
        remedy = (
            "end other programs; on a Raspberry Pi boot to the console: sudo raspi-config nonint do_boot_behaviour B1"
        )
        yield Finding("slow", f"{format_size(free)} of memory are free, which is little", remedy)
    else:
        yield Finding("ok", f"{format_size(free)} of memory are free")


def _locking(root: Path) -> Iterator[Finding]:
    may = lockable_bytes(root)
    if may < available_bytes():
        yield Finding(
            "note",
            f"{format_size(may)} may be locked in memory; what is kept beyond stays as long as nothing else presses",
            "where /etc/security/limits.conf exists: echo '* - memlock unlimited' | sudo tee -a "
            "/etc/security/limits.conf, and log in again; in a container: docker run --ulimit memlock=-1",
        )
    else:
        yield Finding("ok", "memory may be locked")


def _swap(root: Path) -> Iterator[Finding]:
    lines = (_read(root / "proc/meminfo") or "").splitlines()
    total = next((int(line.split()[1]) for line in lines if line.startswith("SwapTotal:")), None)
    if total == 0:
        yield Finding(
            "note", "there is no swap: idle programs cannot make room", "sudo apt install zram-tools (swap in memory)"
        )
    else:
        yield Finding("ok", "there is swap" if total else "swap is not to be seen")


def _loading(models: Path) -> Iterator[Finding]:
    """Whether weights can be streamed, tried with the header that there is, or one of a large vocabulary."""
    header = _largest_header(models)
    if limits := foreseen_limits(header):
        remedy = "export TMPDIR=DIRECTORY, one on ext4, f2fs or tmpfs that has room"
        yield Finding("slow", limits, remedy if has_maps() else "mount /proc, where this is Linux")
    else:
        n_bytes = max(part.data_offset for part in header.parts)
        yield Finding("ok", f"loading reads no more than {format_size(n_bytes)} of a model that is streamed")
    for part in header.parts:
        if part.path != _ZEROS and not is_shareable(part.path):
            yield _unshareable(part.path)


def _unshareable(path: Path) -> Finding:
    shown = f"{mount_of(path)} has no shared mappings: what fits is read into memory"
    try:
        sharing(path)
    except ModelError:
        return Finding("wrong", f"{shown}, and nothing can be streamed", "move the models to another disk")
    return Finding("note", f"{shown}, what is streamed is mapped privately", "move the models to another disk")


def _largest_header(models: Path) -> Header:
    for path in reversed(_by_size(models)):
        with suppress(ModelError):
            return read_header(path)
    part = Part(_ZEROS, 2 * _LARGE_HEADER, _LARGE_HEADER)
    return Header(models / "model.gguf", part.n_bytes, {}, (), (part,))


def _by_size(models: Path) -> list[Path]:
    return sorted((path for path in models.glob("*.gguf") if path.is_file()), key=lambda path: path.stat().st_size)


def _disk(models: Path) -> Iterator[Finding]:
    found = _by_size(models)
    if not found:
        remedy = "cadcpp models list, or --dir DIRECTORY"
        yield Finding("note", f"no model in {models} to measure the disk with", remedy)
        return
    speed = disk_bytes_per_s(found[-1])
    shown = f"the disk under {models} reads {format_size(int(speed))} a second"
    if speed < _SLOW_DISK:
        yield Finding("slow", shown, "move the models to an SSD, on USB 3 or NVMe; SD cards are the slowest")
    else:
        yield Finding("ok", shown)


def _read_ahead(models: Path, root: Path) -> Iterator[Finding]:
    device = (models if models.exists() else Path(".")).stat().st_dev
    block = (root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    for setting in (block / "queue/read_ahead_kb", block.parent / "queue/read_ahead_kb"):
        value = _read(setting)
        if value is not None and int(value) < _READ_AHEAD_KB:
            remedy = f"echo {_READ_AHEAD_KB} | sudo tee {setting}"
            yield Finding("slow", f"the disk's read-ahead is {value.strip()} KiB, less than usual", remedy)


def _governor(root: Path) -> Iterator[Finding]:
    folder = root / "sys/devices/system/cpu/cpu0/cpufreq"
    driver, governor = (_read(folder / f"scaling_{name}") or "" for name in ("driver", "governor"))
    if governor.strip() == "powersave" and "pstate" not in driver:  # with those drivers it means something else
        remedy = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield Finding("slow", "the processor is kept at its lowest clock (governor powersave)", remedy)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:  # not here, or not for us to read, as on Android
        return None
