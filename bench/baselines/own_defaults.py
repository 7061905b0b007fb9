"""A model's parameters as llama.cpp itself sets them: repacked weights, tiled kernels.

    python -m bench.baselines.own_defaults MODEL        dies where this machine does not survive them

Some virtual machines announce AMX and kill whoever uses it. There its weights are repacked without AMX.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.program import run_program
from cadcpp.gguf.header import read_header
from cadcpp.gguf.sketch import sketch

_CPUINFO = Path("/proc/cpuinfo")
_N_ROWS = 64


def model_params(path: Path) -> Any:
    """What to load a model with; it must live until the model is loaded."""
    from llama_cpp import llama_cpp as api

    params = api.llama_model_default_params()
    if not survives_defaults(path):
        from cadcpp.native.repacking import Overrides, repackable  # sets cadcpp's own choice of kernels

        params.owned = Overrides(repackable(read_header(path)))
        params.use_extra_bufts, params.tensor_buft_overrides = False, params.owned.address
    return params


def survives_defaults(path: Path) -> bool:
    """Whether this machine has the units that it announces."""
    if not _CPUINFO.exists() or " amx_int8" not in _CPUINFO.read_text():
        return True
    command = [sys.executable, "-m", "bench.baselines.own_defaults", str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def main() -> None:
    """Some rows through a small model of the same types."""
    from llama_cpp import llama_cpp as api

    with TemporaryDirectory() as folder:
        sketch(read_header(Path(sys.argv[1]))).write(small := Path(folder) / "small.gguf")
        model = api.llama_model_load_from_file(str(small).encode(), api.llama_model_default_params())
        context = api.llama_init_from_model(model, api.llama_context_default_params())
        tokens = (api.llama_token * _N_ROWS)()
        sys.exit(api.llama_decode(context, api.llama_batch_get_one(tokens, _N_ROWS)))


if __name__ == "__main__":
    run_program(main)
