"""ARM processors that this machine emulates: a system's files, and llama.cpp cross-compiled for each of them.

Debian's arm64 Python runs under user-mode emulation, with the wheels of PyPI. All of it is made once and kept.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.baselines.llama_speculative import sources
from cadcpp.system.user_dirs import cache_dir

PLACE = (cache_dir() or Path(__file__).parents[3] / "build") / "arm"
PACKAGES = "qemu-user-static debootstrap gcc-aarch64-linux-gnu g++-aarch64-linux-gnu cmake ninja-build"
TOOLS = ("qemu-aarch64-static", "debootstrap", "aarch64-linux-gnu-g++", "cmake", "ninja")
_MAKING = threading.RLock()
_SUITE, _PYTHON = "bookworm", "3.11"
_DEBIAN = ("--foreign", "--variant=minbase", "--arch=arm64", "--include=python3,libgomp1")
_WHEELS = ("numpy", "click", "psutil", "jinja2", "gguf", "pytest", "hypothesis", "typing_extensions", "diskcache")
_PLATFORMS = tuple(f"--platform={tag}_aarch64" for tag in ("manylinux2014", "manylinux_2_17", "manylinux_2_28"))
_OFF = ("GGML_NATIVE", "LLAMA_CURL", *(f"LLAMA_BUILD_{part}" for part in "COMMON TESTS EXAMPLES TOOLS SERVER".split()))
_CMAKE = (
    *("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DCMAKE_BUILD_TYPE=Release"),
    *("-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc", "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++"),
    "-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON",  # so that copies of a library find each other
    *(f"-D{name}=OFF" for name in _OFF),
)


@dataclass(frozen=True, slots=True)
class Processor:
    """What llama.cpp is compiled for, as it would be on the device itself, and what the emulator is."""

    name: str
    architecture: str
    emulated: str

    def python(self) -> list[str]:
        """The command of a Python that runs on it."""
        system = _system()
        return [TOOLS[0], "-L", str(system), str(system / "usr/bin" / f"python{_PYTHON}")]

    def environment(self) -> dict[str, str]:
        """What that Python needs to find; emulated threads that spin would starve each other."""
        path = os.pathsep.join(map(str, (self._library(), _wheels())))
        return {"PYTHONPATH": path, "QEMU_CPU": self.emulated, "OMP_WAIT_POLICY": "passive"}

    def _library(self) -> Path:
        """llama.cpp's libraries beside a copy of their binding."""
        return _kept("library", self._build, version("llama-cpp-python"), self.architecture, _CMAKE)

    def _build(self, made: Path) -> None:
        """In one folder for all processors, which differ in a few files only."""
        unpacked = _sources()
        built = unpacked.parent / "build"
        options = [*_CMAKE, f"-DGGML_CPU_ARM_ARCH={self.architecture}"]
        _call("cmake", "-G", "Ninja", "-S", str(unpacked / "vendor/llama.cpp"), "-B", str(built), *options)
        _call("cmake", "--build", str(built), "--target", "llama")
        shutil.copytree(unpacked / "llama_cpp", made / "llama_cpp")
        shutil.copytree(built / "bin", made / "llama_cpp" / "lib", symlinks=True, dirs_exist_ok=True)


_SVE = "armv8.6-a+i8mm+fp16+sve"
PROCESSORS = (
    Processor("cortex-a76", "armv8.2-a+dotprod+fp16", "cortex-a76"),  # a Raspberry Pi 5
    Processor("i8mm", "armv8.6-a+i8mm+fp16", "max,sve=off,pauth-impdef=on"),  # phones since 2021
    Processor("sve-128", _SVE, "max,sve-max-vq=1,pauth-impdef=on"),  # phones with Armv9, Graviton4
    Processor("sve-256", _SVE, "max,sve-max-vq=2,pauth-impdef=on"),  # Graviton3
)


def missing_tools() -> list[str]:
    return [tool for tool in TOOLS if not shutil.which(tool)]


def _system() -> Path:
    """An arm64 system's files, unpacked and never booted."""

    def make(made: Path) -> None:
        _call("debootstrap", *_DEBIAN, _SUITE, str(made))
        for package in (made / "var/cache/apt/archives").glob("*.deb"):
            _call("dpkg-deb", "-x", str(package), str(made))

    return _kept("system", make, _SUITE, _DEBIAN)


def _wheels() -> Path:
    what = ("--only-binary=:all:", f"--python-version={_PYTHON}", *_PLATFORMS, *_WHEELS)
    return _kept("wheels", lambda made: _pip("install", "--target", str(made), *what), what)


def _sources() -> Path:
    """The binding's source package, of the version that is installed here."""

    def make(made: Path) -> None:
        made.mkdir()
        sources(made)

    unpacked = _kept("sources", make, version("llama-cpp-python"))
    return next(unpacked.glob("*/vendor/llama.cpp")).parents[1]


def _kept(name: str, make: Callable[[Path], object], *made_of: str | Sequence[str]) -> Path:
    """A folder that is made unless it is there already, made of the same; by one thread, for all that wait for it."""
    path = PLACE / f"{name}-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:8]}"
    with _MAKING:
        if not path.exists():
            PLACE.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(part := path.with_suffix(".part"), ignore_errors=True)
            make(part)
            part.rename(path)
    return path


def _pip(*arguments: str) -> None:
    _call(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def _call(*command: str) -> None:
    """A command whose output is shown only if it fails, which ends this program."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{(done.stderr or done.stdout)[-2000:]}")
