"""A model of 46 MB in 12 layers: large enough to be streamed, small enough to be copied for every fault."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cadcpp.gguf.header import read_header
from cadcpp.residency.memory_plan import make_plan

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
N_CTX = 512


@pytest.fixture(scope="session")
def sound(tiny: Callable[..., Path]) -> Path:
    """The model, which no test may touch."""
    return tiny("llama", n_layer=12, n_embd=256, n_head=8, n_head_kv=2, n_ff=1024, chat_template=TEMPLATE)


@pytest.fixture
def model(sound: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copy(sound, tmp_path / "model.gguf"))


@pytest.fixture(scope="session")
def half(sound: Path) -> int:
    """A budget in which half of the model finds room."""
    header = read_header(sound)
    return make_plan(header, None, ram=1 << 40, n_ctx=N_CTX, rows=64).fixed + header.n_bytes // 2
