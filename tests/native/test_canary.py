"""What cadcpp takes for granted of llama-cpp-python and llama.cpp without a promise, each piece by its name.

The versions that are allowed stand in pyproject.toml. With another one, what fails here says which lines to look at.
"""

import ast
import ctypes
import functools
import inspect
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cadcpp.gguf.ggml_base import binding_folder, ggml_base, listening
from cadcpp.gguf.parser import parser
from cadcpp.link.connection import connect
from cadcpp.link.protocol import CAPS_BYTES, VERSION, Command, ask
from cadcpp.llama.chat import _formatter_of
from cadcpp.llama.upstream import Upstream
from cadcpp.native.lib import api
from cadcpp.native.model import Model
from cadcpp.residency.context_shape import MAX_SEQ
from tests.support.workers import needs_rpc, worker

from llama_cpp import _internals as internals  # isort: skip  after cadcpp.native.lib
from llama_cpp.llama_chat_format import get_chat_completion_handler  # isort: skip

LIBRARIES = binding_folder() / "lib"


@functools.cache
def tree_of(thing: Any) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(thing)))


def attributes(thing: Any, of: str) -> set[str]:
    """Every ``of.<name>`` in the source of a function or a class."""
    nodes = (node for node in ast.walk(tree_of(thing)) if isinstance(node, ast.Attribute))
    return {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == of}


# llama.cpp's RPC backend, where it was built in. ------------------------------------------------------------


@needs_rpc
def test_workers_are_spoken_to_in_the_version_that_llama_cpp_speaks() -> None:
    with worker(1 << 30) as there, connect(there.address) as sock:
        assert tuple(ask(sock, Command.HELLO, bytes(CAPS_BYTES))[:2]) == VERSION, "link/protocol.py"


# llama_cpp.Llama and its parts. ---------------------------------------------------------------------------


def test_the_constructor_looks_for_its_parts_in_internals() -> None:
    init = Upstream.__init__
    assert init.__globals__["internals"] is internals, "llama/upstream.py construct() puts cadcpp's parts in there"
    wanted = {"LlamaModel", "LlamaContext", "LlamaBatch", "LlamaTokenDataArray"}
    assert attributes(init, "internals") == wanted, "llama/upstream.py session_parts() gives just these"


def test_the_constructor_closes_over_what_a_copy_of_it_gets_too() -> None:
    assert set(Upstream.__init__.__code__.co_freevars) <= {"__class__"}, "llama/upstream.py construct() copies it"


@pytest.mark.parametrize(
    ("part", "given"),
    [
        ("LlamaModel", {"model", "vocab", "path_model", "verbose", "sampler", "custom_samplers", "_exit_stack"}),
        ("LlamaContext", {"model", "ctx", "memory", "verbose", "_exit_stack"}),
    ],
)
def test_the_methods_of_a_part_use_what_a_session_gives_it(part: str, given: set[str]) -> None:
    kind = getattr(internals, part)
    methods = {name for name, _ in inspect.getmembers(kind, callable)}
    used = set().union(*(attributes(kind.__dict__[name], "self") for name in kind.__dict__ if _is_method(kind, name)))
    assert used - methods <= given, f"llama/upstream.py makes a {part} without upstream's constructor"


def _is_method(kind: type, name: str) -> bool:
    return name != "__init__" and inspect.isfunction(kind.__dict__[name])


def test_completions_take_their_tokens_from_generate_alone() -> None:
    used = attributes(Upstream._create_completion, "self")
    assert "generate" in used, "llama/llama.py overrides generate(), so that completions are the engine's"
    assert not used & {"eval", "sample"}, "a completion decodes by itself: see llama/llama.py"
    assert "create_completion" in attributes(Upstream.__call__, "self"), "llama/llama.py overrides it"


def test_generate_is_called_with_what_a_sampler_is_made_of() -> None:
    given = set(inspect.signature(Upstream.generate).parameters) - {"self", "tokens", "reset", "stopping_criteria"}
    taken = set(inspect.signature(Upstream._init_sampler).parameters)
    assert given <= taken, "llama/llama.py _generate() hands all of them on to _init_sampler()"


@pytest.mark.parametrize(
    "name",
    "_model _logits_all _n_vocab _seed _stack _sampler input_ids scores n_tokens n_batch draft_model".split(),
)
def test_the_class_has_an_attribute(name: str) -> None:
    assert name in attributes(Upstream, "self"), f"llama/llama.py reads or sets Llama.{name}"


def test_a_grammar_has_its_text_and_its_root() -> None:
    from llama_cpp import LlamaGrammar

    grammar = LlamaGrammar.from_string('root ::= "a"', verbose=False)
    assert (grammar._grammar, grammar._root) == ('root ::= "a"', "root"), "llama/llama.py _generate() checks them"


# Its server. ----------------------------------------------------------------------------------------------


def test_a_chat_handler_has_its_formatter() -> None:
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    formatter = Jinja2ChatFormatter("{{ messages }}", "</s>", "<s>")
    assert _formatter_of(formatter.to_chat_handler()) is formatter, "llama/chat.py makes prompts with it"
    assert formatter.template == "{{ messages }}", "llama/chat.py looks for signs of the model's family in it"
    assert _formatter_of(get_chat_completion_handler("chatml")) is not None
    assert _formatter_of(get_chat_completion_handler("functionary")) is None


# llama.cpp's structures and numbers. ----------------------------------------------------------------------

FIELDS = {
    "llama_context_params": "n_ctx n_batch n_ubatch n_seq_max kv_unified n_outputs_max n_threads n_threads_batch "
    "flash_attn_type type_k type_v swa_full no_perf cb_eval rope_freq_base rope_freq_scale op_offload",
    "llama_model_params": "n_gpu_layers use_extra_bufts load_mode kv_overrides progress_callback",
    "llama_model_kv_override": "key tag value",
    "llama_model_quantize_params": "ftype allow_requantize",
    "llama_batch": "n_tokens token pos n_seq_id seq_id logits",
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_structure_has_the_fields_that_are_set(name: str) -> None:
    missing = set(FIELDS[name].split()) - {field[0] for field in getattr(api, name)._fields_}
    assert not missing, f"setting these in a {name} would do nothing, without an error: native/, models/edit/"


def test_defaults_come_back_from_c_in_the_fields_where_they_belong() -> None:
    context, model = api.llama_context_default_params(), api.llama_model_default_params()
    quantize = api.llama_model_quantize_default_params()
    given = (context.n_ctx, context.n_batch, context.n_ubatch, context.n_seq_max, context.n_outputs_max)
    assert given == (512, 2048, 512, 1, 0), "llama_context_params has shifted: native/context.py"
    assert (context.type_k, context.flash_attn_type, context.swa_full, context.kv_unified) == (1, -1, True, False)
    assert (model.load_mode, model.use_extra_bufts) == (api.LLAMA_LOAD_MODE_AUTO, True), "native/model.py"
    assert quantize.allow_requantize is False, "models/edit/quantize.py"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LLAMA_LOAD_MODE_NONE", 0),
        ("LLAMA_LOAD_MODE_MMAP", 1),
        ("LLAMA_FLASH_ATTN_TYPE_ENABLED", 1),
        ("LLAMA_KV_OVERRIDE_TYPE_INT", 0),
        ("LLAMA_KV_OVERRIDE_TYPE_STR", 3),
        ("GGML_TYPE_Q8_0", 8),
        ("LLAMA_FTYPE_MOSTLY_Q8_0", 7),
        ("LLAMA_FTYPE_MOSTLY_Q2_K", 10),
    ],
)
def test_a_number_means_what_it_meant(name: str, value: int) -> None:
    assert getattr(api, name, None) == value, "llama.cpp has renumbered: see whether the binding's header did as well"


def test_there_are_as_many_sequences_as_a_batch_points_to() -> None:
    assert api.llama_max_parallel_sequences() == MAX_SEQ, "residency/context_shape.py MAX_SEQ"


# llama.cpp's libraries. -----------------------------------------------------------------------------------


def test_the_binding_keeps_its_library_where_ggml_is_found_through_it() -> None:
    assert isinstance(getattr(api, "_lib", None), ctypes.CDLL), "gguf/ggml_base.py finds ggml through llama_cpp._lib"
    assert hasattr(api._lib, "gguf_init_from_file"), "gguf/ggml_base.py would load ggml a second time"


def test_the_base_library_exports_what_is_called() -> None:
    assert parser().readers, "gguf/parser.py declares these"
    names = "ggml_log_set ggml_type_name ggml_get_name ggml_nbytes ggml_backend_tensor_get"
    missing = [name for name in names.split() if not hasattr(ggml_base(), name)]
    assert not missing, "gguf/ggml_base.py and native/lib.py declare them"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="tells what is mapped on Linux alone")
@pytest.mark.parametrize("order", [("cadcpp.gguf.parser", "cadcpp.native.lib"), ("cadcpp.native.lib",)])
def test_the_base_library_is_loaded_once_whoever_comes_first(order: tuple[str, ...]) -> None:
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    code += "from cadcpp.gguf.parser import parser; parser(); maps = open('/proc/self/maps').read().split()\n"
    code += "print(len({word for word in maps if 'libggml-base' in word}))"
    done = subprocess.run([sys.executable, "-c", code, *order], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n", "two copies have two logs: gguf/ggml_base.py _load()"


def test_the_tiled_kernels_are_switched_by_a_variable() -> None:
    found = [path for path in LIBRARIES.glob("*ggml-cpu*") if b"GGML_CPU_TILED_MM" in path.read_bytes()]
    assert found, "native/lib.py switches the tiled kernels off, since they round differently: how is it done now?"


def test_the_processor_is_described_in_words_that_are_looked_for() -> None:
    info = api.llama_print_system_info().decode()
    assert " = 1 | " in info, "native/model.py looks for 'AMX_INT8 = 1' in it, cli/diagnose.py for other units"


def test_loading_says_that_it_begins_with_the_tensors_before_any_progress(tiny: Callable[..., Path]) -> None:
    seen = list[str]()

    def report(*_: Any) -> bool:
        seen.append("progress")
        return True

    params = api.llama_model_default_params()
    params.n_gpu_layers, params.load_mode = 0, api.LLAMA_LOAD_MODE_MMAP
    params.progress_callback = callback = api.llama_progress_callback(report)
    with listening(lambda line: seen.append("tensors") if "loading model tensors" in line else None):
        api.llama_model_free(api.llama_model_load_from_file(str(tiny()).encode(), params))
    assert callback and seen[:2] == ["tensors", "progress"], "system/stub.py cuts the stub at that line"


def test_importing_the_package_takes_the_log_which_loading_takes_back(tiny: Callable[..., Path]) -> None:
    code = "from cadcpp.native.model import Model; import llama_cpp, sys; Model(sys.argv[1], stub=True).close()"
    done = subprocess.run([sys.executable, "-c", code, str(tiny())], capture_output=True, text=True, check=True)
    assert done.stderr == "", "native/lib.py quiet()"


def test_a_stub_is_mapped_so_that_the_file_can_be_put_over_it(tiny: Callable[..., Path]) -> None:
    model = Model(tiny(), stub=True)
    try:
        assert model.mapping is not None, "system/stub.py did not find llama.cpp's mapping of the stub"
    finally:
        model.close()
