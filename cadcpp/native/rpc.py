"""llama.cpp's RPC backend: its server, and the devices that stand for workers."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cadcpp.errors import ConfigError
from cadcpp.native.lib import Signatures, api, declared

_REBUILD = (
    'CMAKE_ARGS="-DGGML_RPC=ON" pip install --force-reinstall --no-deps --no-cache-dir --no-binary llama-cpp-python '
    "llama-cpp-python"
)
_CPU = 0
_pointer = ctypes.c_void_p
_SIGNATURES: Signatures = {
    "ggml_backend_dev_by_type": (_pointer, (ctypes.c_int,)),
    "ggml_backend_get_device": (_pointer, (_pointer,)),
    "ggml_backend_free": (None, (_pointer,)),
    "ggml_backend_rpc_init": (_pointer, (ctypes.c_char_p, ctypes.c_uint32)),
    "ggml_backend_rpc_start_server": (
        None,
        (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.POINTER(_pointer)),
    ),
}


def remedy() -> str:
    """The command that builds llama.cpp with its RPC backend; empty if it has that."""
    return "" if hasattr(api._lib, "ggml_backend_rpc_init") else _REBUILD


def check_rpc() -> None:
    """Raises ConfigError, which says how to get it, if llama.cpp was built without its RPC backend."""
    if command := remedy():
        raise ConfigError(f"this llama.cpp was built without RPC, which workers need: reinstall it with {command}")


def start_server(endpoint: str, cache: str | None, n_threads: int) -> None:
    """Serve one client after the other on this machine's processor. Returns if it cannot listen there."""
    library = _library()
    devices = (_pointer * 1)(library.ggml_backend_dev_by_type(_CPU))
    folder = cache.encode() if cache else None
    library.ggml_backend_rpc_start_server(endpoint.encode(), folder, n_threads, 1, devices)


class Device:
    """A worker's processor, as llama.cpp sees it, and the connection to it, which lasts as long."""

    def __init__(self, endpoint: str) -> None:
        """The endpoint must answer: llama.cpp ends the process if it does not."""
        library = _library()
        self._backend = library.ggml_backend_rpc_init(endpoint.encode(), 0)
        self.handle = int(library.ggml_backend_get_device(self._backend))

    def close(self) -> None:
        """May be called twice."""
        backend, self._backend = self._backend, None
        if backend:
            _library().ggml_backend_free(backend)


@dataclass(frozen=True, slots=True)
class Spread:
    """The blocks of a model that workers compute: those from ``first`` on, the first ``counts[0]`` on the first."""

    devices: tuple[Device, ...]
    counts: tuple[int, ...]
    first: int
    check: Callable[[], None]  # raises WorkerError once one of them is lost

    def apply(self, params: Any, n_blocks: int) -> object:
        """Put it into a model's parameters, which need what is returned for as long as they are used."""
        devices = (_pointer * (len(self.devices) + 1))(*(device.handle for device in self.devices), None)
        shares = (ctypes.c_float * api.llama_max_devices())(*self.counts)
        shares[len(self.counts) - 1] += n_blocks + 1 - self.first - sum(self.counts)  # the output counts as a layer
        params.devices, params.tensor_split = ctypes.cast(devices, _pointer), shares
        params.n_gpu_layers = n_blocks + 1 - self.first
        return devices, shares


def _library() -> Any:
    check_rpc()
    return declared(_SIGNATURES)
