"""Models that tests run on."""

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from cadcpp.models.demo import DemoPair, make_demo, smollm2_as
from tests.support import tinygguf, tinystate

ROOT = Path(__file__).parents[1]

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# A background job ignores Ctrl-C, one of nohup a lost terminal as well, and so would every command that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes run the tests, one runs all of a file with large models: they share what is loaded."""
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="session", autouse=True)
def _shared_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where sessions that several tests share keep what they learn; they are made before `state`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("shared")))
        yield


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where chats are kept; not the user's own place, and not there yet."""
    directory = tmp_path_factory.mktemp("home") / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(directory))
    return directory


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Where real models are kept between runs."""
    return Path(os.environ.get("CADCPP_MODELS") or ROOT / "models")


@pytest.fixture(scope="session")
def making(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], AbstractContextManager[None]]:
    """One worker at a time makes models: what it makes, the others need as well."""

    @contextmanager
    def alone() -> Iterator[None]:
        with (tmp_path_factory.getbasetemp().parent / "making").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    return alone


@pytest.fixture(scope="session")
def demo(models_dir: Path, making: Callable[[], AbstractContextManager[None]]) -> DemoPair:
    """The demo pair of the default size."""
    with making():
        return make_demo(models_dir)


@pytest.fixture(scope="session")
def smollm2(models_dir: Path, making: Callable[[], AbstractContextManager[None]]) -> Callable[[str], Path]:
    """SmolLM2 itself with its weights in a given type, such as ``smollm2("Q4_0")``."""

    def make(type_name: str) -> Path:
        with making():
            return smollm2_as(type_name, models_dir)

    return make


@pytest.fixture(scope="session")
def target(smollm2: Callable[[str], Path]) -> Path:
    """SmolLM2 in the type that is next to its own."""
    return smollm2("Q8_0")


@pytest.fixture
def drafting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts are made whatever rows cost here."""
    monkeypatch.setattr("cadcpp.runtime.kernel_choice._cost", lambda *_: 1.0)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Tiny models with random weights, each made once: ``tiny("llama", noise=0.05)``, ``tiny("mamba")``."""
    directory = tmp_path_factory.mktemp("tiny")
    made: dict[str, Path] = {}

    def make(architecture: str = "llama", **options: Any) -> Path:
        key = f"{architecture} {sorted(options.items())}"
        if key not in made:
            path = directory / f"{architecture}-{len(made)}.gguf"
            home = tinygguf if hasattr(tinygguf, f"tiny_{architecture}") else tinystate
            made[key] = getattr(home, f"tiny_{architecture}")(path, **options)
        return made[key]

    return make
