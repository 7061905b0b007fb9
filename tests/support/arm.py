"""cadcpp's own code and tests on emulated ARM processors; prints which kernels are exact on each.

python -m tests.support.arm [--quick]          builds what it needs in build/arm, once, as root

Debian's arm64 Python runs under user-mode emulation, with the wheels of PyPI and llama.cpp cross-compiled for each
processor. --quick takes one of them, and five minutes. Nothing here says how fast anything is.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.baselines.llama_speculative import sources

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "build" / "arm"
PACKAGES = "qemu-user-static debootstrap gcc-aarch64-linux-gnu g++-aarch64-linux-gnu cmake ninja-build"
TOOLS = ("qemu-aarch64-static", "debootstrap", "aarch64-linux-gnu-g++", "cmake", "ninja")
TESTS = ("test_exactness.py", "test_tree_batch.py", "test_staged.py")
QUICK = ("q8_0", "q4_K")
_SUITE, _PYTHON = "bookworm", "3.11"
_WHEELS = ("numpy", "click", "psutil", "jinja2", "gguf", "pytest", "hypothesis", "typing_extensions", "diskcache")
_COMPILERS = (("C", "gcc"), ("CXX", "g++"))
_OFF = ("GGML_NATIVE", *(f"LLAMA_BUILD_{part}" for part in ("COMMON", "TESTS", "EXAMPLES", "TOOLS", "SERVER")))


@dataclass(frozen=True, slots=True)
class Processor:
    """A processor: what llama.cpp is compiled for, and what the emulator is."""

    name: str
    architecture: str
    emulated: str

    @property
    def place(self) -> Path:
        return PLACE / self.name


PROCESSORS = (
    Processor("cortex-a76", "armv8.2-a+dotprod", "cortex-a76"),  # a Raspberry Pi 5
    Processor("i8mm", "armv8.6-a+i8mm", "max,sve=off,pauth-impdef=on"),  # phones since 2021
    Processor("sve", "armv8.6-a+i8mm+sve", "max,pauth-impdef=on"),
)


def main() -> None:
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        sys.exit(f"{', '.join(missing)} not found: apt install {PACKAGES}")
    quick = "--quick" in sys.argv[1:]
    prepare_system()
    for processor in PROCESSORS[: 1 if quick else None]:
        build(processor)
        print(f"\n## {processor.name}\n", flush=True)
        run(processor, "-m", "bench.studies.exactness", *(QUICK if quick else ()))
        tests = [str(ROOT / "tests" / "native" / name) for name in TESTS[: 1 if quick else None]]
        run(processor, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)


def run(processor: Processor, *arguments: str) -> None:
    """The emulated Python; ends this program where it fails."""
    path = ":".join(map(str, (ROOT, processor.place, PLACE / "wheels")))
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "QEMU_CPU": processor.emulated,
        "XDG_CACHE_HOME": str(processor.place / "cache"),
        "OMP_WAIT_POLICY": "passive",  # emulated threads that spin would starve each other
    }
    system = PLACE / "system"
    python = [TOOLS[0], "-L", str(system), str(system / "usr/bin" / f"python{_PYTHON}")]
    done = subprocess.run([*python, *arguments], env=environment, cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)


def prepare_system() -> None:
    """An arm64 system's files, unpacked and never booted, and wheels for its Python."""
    system, wheels = PLACE / "system", PLACE / "wheels"
    if wheels.exists():
        return
    options = ["--foreign", "--variant=minbase", "--arch=arm64", "--include=python3,libgomp1"]
    _call("debootstrap", *options, _SUITE, str(system))
    for package in (system / "var/cache/apt/archives").glob("*.deb"):
        _call("dpkg-deb", "-x", str(package), str(system))
    platforms = [f"--platform={tag}_aarch64" for tag in ("manylinux2014", "manylinux_2_17", "manylinux_2_28")]
    what = ["--only-binary=:all:", f"--python-version={_PYTHON}", *platforms]
    _pip("install", "--target", str(wheels.with_suffix(".part")), *what, *_WHEELS)
    wheels.with_suffix(".part").rename(wheels)


def build(processor: Processor) -> None:
    """llama.cpp's libraries for one processor, beside a copy of their binding."""
    if processor.place.exists():
        return
    sources, made = _sources(), PLACE / f"build-{processor.name}"
    compilers = [f"-DCMAKE_{language}_COMPILER=aarch64-linux-gnu-{name}" for language, name in _COMPILERS]
    target = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DCMAKE_BUILD_TYPE=Release"]
    options = [f"-DGGML_CPU_ARM_ARCH={processor.architecture}", "-DLLAMA_CURL=OFF", *(f"-D{name}=OFF" for name in _OFF)]
    where = ["-G", "Ninja", "-S", str(sources / "vendor/llama.cpp"), "-B", str(made)]
    _call("cmake", *where, *target, *compilers, *options)
    _call("cmake", "--build", str(made), "--target", "llama")
    part = processor.place.with_suffix(".part")
    shutil.copytree(sources / "llama_cpp", part / "llama_cpp", dirs_exist_ok=True)
    shutil.copytree(made / "bin", part / "llama_cpp" / "lib", symlinks=True, dirs_exist_ok=True)
    part.rename(processor.place)


def _sources() -> Path:
    """The binding's source package, of the version that is installed here."""
    found = next(PLACE.glob("*/vendor/llama.cpp"), None)
    return (found or sources(PLACE)).parents[1]


def _pip(*arguments: str) -> None:
    _call(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def _call(*command: str) -> None:
    """A command whose output is shown only if it fails, which ends this program."""
    PLACE.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{(done.stderr or done.stdout)[-2000:]}")


if __name__ == "__main__":
    main()
