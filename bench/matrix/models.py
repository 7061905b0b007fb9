"""The models that are measured: the demo pair, its verifier in other sizes and types, other drafts; made if needed."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.measure import record
from cadcpp.gguf.header import read_header
from cadcpp.models.demo import hybrid_name, hybrid_verifier, make_demo, padded_name, padded_verifier, smollm2_as
from cadcpp.models.edit.quantize import requantize
from cadcpp.util.files import new_file

SIZES = {"0.3GB": 300_000_000, "0.6GB": 600_000_000, "1.2GB": 1_200_000_000, "2.4GB": 2_400_000_000}
SIZES |= {"4GB": 4_000_000_000}
USUAL_SIZE, USUAL_DRAFT = "1.2GB", "Q2_K"
TYPES = ("Q4_0", "Q4_K_M", "Q8_0")  # in which there is a verifier of one shape
KEPT_BYTES = 2_000_000_000  # what is larger is deleted after use
_N_FF = 14848  # of the verifiers of one shape: 1.18 GB as Q8_0, 0.68 as Q4_K_M, 0.64 as Q4_0
_USELESS_FROM = 4  # the first layer that adds nothing


def verifier(size: str = USUAL_SIZE) -> Path:
    """The demo's in a size; of the one shape for one of TYPES."""
    if size in TYPES:
        return verifier_of_type(size)
    name = size.replace("0.", "").replace("GB", "00MB") if size.startswith("0.") else size
    return record.models() / f"smollm2-135m-wide-{name}-Q8_0.gguf"


def verifier_of_type(type_name: str) -> Path:
    """SmolLM2, padded and widened: of one shape in all of TYPES, its rows whole blocks of the K-quants."""
    return record.models() / padded_name(_N_FF, type_name)


def draft(kind: str = USUAL_DRAFT) -> Path:
    """Of a weight type; "useless" is Q2_K with its upper layers blanked; "Q8_0" is SmolLM2 itself."""
    name = "smollm2-135m-Q8_0" if kind == "Q8_0" else f"smollm2-135m-draft-{kind}"
    return record.models() / f"{name}.gguf"


def hybrid() -> Path:
    """SmolLM2 as a hybrid, not widened."""
    return record.models() / hybrid_name(SIZES["0.3GB"], "Q8_0")


def hybrid_draft() -> Path:
    """The same in Q2_K, as `make-draft` makes it."""
    return record.models() / "smollm2-135m-hybrid-draft-Q2_K.gguf"


def make(path: Path) -> None:
    """One of these files, if it is not there. Raises CadError, such as for a full disk."""
    if not path.is_file():
        _makers()[path]()


def _makers() -> dict[Path, Callable[[], object]]:
    folder = record.models()
    return {
        **{verifier(size): partial(make_demo, folder, size_bytes=n) for size, n in SIZES.items()},
        **{verifier_of_type(name): partial(padded_verifier, folder, name, _N_FF) for name in TYPES},
        **{draft(kind): partial(make_demo, folder, draft_type=kind) for kind in ("Q2_K", "Q4_K_M")},
        draft("Q8_0"): partial(smollm2_as, "Q8_0", folder),
        draft("useless"): partial(_blank, draft(), draft("useless")),
        hybrid(): partial(hybrid_verifier, folder, size_bytes=SIZES["0.3GB"]),
        hybrid_draft(): partial(_requantize, hybrid(), hybrid_draft(), "Q2_K"),
    }


def _requantize(source: Path, target: Path, type_name: str) -> None:
    make(source)
    requantize(source, target, type_name)


def _blank(source: Path, target: Path) -> None:
    """The same file, but what its upper layers would add is zero."""
    make(source)
    tensors = [t for t in read_header(source).tensors if t.name.endswith(("attn_output.weight", "ffn_down.weight"))]
    with new_file(target) as part:
        shutil.copy(source, part)
        with part.open("r+b") as file:
            for tensor in tensors:
                if int(tensor.name.split(".")[1]) >= _USELESS_FROM:
                    file.seek(tensor.offset)
                    file.write(bytes(tensor.n_bytes))
