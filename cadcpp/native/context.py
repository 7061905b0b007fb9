"""One llama.cpp context: decode batches, read logits, and the verbs of its KV cache."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.ctypeslib import as_array  # numpy would load it in the middle of the first round
from numpy.typing import NDArray

from cadcpp.errors import ConfigError, NativeError
from cadcpp.native.batch import Batch
from cadcpp.native.lib import api, last_error, read_tensor, tensor_name
from cadcpp.native.model import Model
from cadcpp.residency.context_shape import ContextShape
from cadcpp.system.fresh_memory import zeros_freed
from cadcpp.system.heap import empty
from cadcpp.util.lifetime import Lifetime

# llama.cpp asks a C function between two operations whether to stop. strlen of a text that is empty until then says so
# without a word of Python, which would cost more than some of the operations.
_NOT_EMPTY = ctypes.cast(ctypes.CDLL(None).strlen, api.ggml_abort_callback)
_LENGTH = 8  # bytes that a piece's length takes
_ABORTED = 2  # what llama_decode then returns
# llama.cpp's names of what is left when a layer is done, and of a mixture's experts in the order of their use.
_LAYER, _ROUTER = "l_out-{}", "ffn_moe_argsort-{}"
_OTHER_LAYER = {  # where it is another name, by the start of an architecture's
    "nemotron_h": "nemotron_h_block_out-{}",
    "plamo2": "ffn_residual-{}",
    "plamo3": "ffn_residual-{}",
}
_STATE_ONLY = api.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
OnLayer = Callable[[float], None]  # share of a pass that is done


class Stopped(Exception):
    """A decode was ended by `Context.stop`."""


class Watcher(Protocol):
    """Is told, from within a decode, how far it is; it may make the decode wait."""

    def start_pass(self, tokens: NDArray[np.int32]) -> None:
        """A pass begins; ``tokens``, [n], are its rows', without those that fill it up; [0] where none are known."""
        ...

    def experts_chosen(self, layer: int, chosen: NDArray[np.int32], n_own: int) -> None:
        """The rows of a layer are routed to experts, [n, n_used]; those after the first ``n_own`` fill the pass up."""
        ...

    def layer_done(self, layer: int) -> None: ...

    def end_pass(self, whole: bool) -> None:
        """A pass is over; ``whole`` if it ran to its end."""
        ...


class Context:
    """KV cache and compute buffers for one model."""

    def __init__(self, model: Model, shape: ContextShape, n_threads: int, watcher: Watcher | None = None) -> None:
        """Flash attention is fixed, and so are keys in q8_0, since exact verification rests on them.

        Values may be in f16: llama.cpp takes kernels that round a single row otherwise only where keys are as well.
        """
        if n_threads < 1:
            raise ConfigError(f"n_threads must be at least 1, got {n_threads}")
        self.model, self.shape, self.n_threads, self._watcher = model, shape, n_threads, watcher
        # A state goes on from its last token alone, so that there a window is never rolled back.
        self._window = 0 if shape.states else int(api.llama_model_n_swa(model.handle))
        self._stack, self._life = ExitStack(), Lifetime(f"the session on {model.path}")
        with zeros_freed(shape.cache_bytes(model.header)) as freed:
            self._handle = api.llama_init_from_model(model.handle, self._params())
        self.fills = freed.done  # whether the cache takes memory only as a text fills it
        if not self._handle:
            model.check_workers()  # a worker that is lost has no memory either
            raise NativeError(f"llama.cpp made no context for {model.path}: {last_error('out of memory?')}")
        self._stack.callback(api.llama_free, self._handle)
        self._empty_logits()
        self.batch = Batch(shape.rows)
        self._in_order = np.arange(shape.outputs)
        self._asked = self._in_order[:0]  # where among all logits those are that the last batch asked for
        self._stop = ctypes.create_string_buffer(2)
        api.llama_set_abort_callback(self.handle, _NOT_EMPTY, ctypes.cast(self._stop, ctypes.c_void_p))

    def _params(self) -> api.llama_context_params:
        shape, params = self.shape, api.llama_context_default_params()
        params.n_ctx = shape.cells
        params.n_batch = params.n_ubatch = shape.rows
        params.n_seq_max, params.kv_unified, params.n_outputs_max = shape.sequences, shape.shared, shape.outputs
        params.n_rs_seq = shape.states.n_snapshots if shape.states else 0
        params.n_threads = params.n_threads_batch = self.n_threads
        params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.type_k = api.GGML_TYPE_Q8_0
        params.type_v = api.GGML_TYPE_F16 if shape.f16_values else api.GGML_TYPE_Q8_0
        params.rope_freq_base, params.rope_freq_scale = self.model.rope
        params.swa_full = True  # a pruned sliding window could not be rolled back
        params.op_offload = False  # a GPU would round in its own way
        params.no_perf = True
        if self._watcher is not None:
            self._reports = _LayerReports(self._watcher, self.model)
            params.cb_eval = self._reports.callback
        return params

    def _empty_logits(self) -> None:
        """llama.cpp fills their buffer with zeros, for as many rows as there are sequences."""
        logits = api.llama_get_logits(self.handle)
        empty(ctypes.cast(logits, ctypes.c_void_p).value or 0, 4 * self.shape.sequences * self.model.n_vocab)

    def close(self) -> None:
        """Free the cache and the buffers; whatever else is asked of it then is refused. May be called twice."""
        self._life.end()
        self._stack.close()

    @property
    def closed(self) -> bool:
        """Whether it is freed, or a forked child's parent's."""
        return self._life.over

    @property
    def handle(self) -> int:
        """llama.cpp's own. Raises ClosedError once it is freed."""
        self._life.check()
        return int(self._handle)

    @property
    def memory(self) -> int:
        """llama.cpp's KV cache. Raises ClosedError once it is freed."""
        return int(api.llama_get_memory(self.handle))

    # compute --------------------------------------------------------------------------------------

    def decode(self, on_layer: OnLayer | None = None) -> None:
        """Evaluate ``self.batch``. Raises NativeError; the cache may then hold a part of the batch.

        Raises ModelError if the model's file is no longer what was loaded: before the pass, or after it, since
        what was computed meanwhile cannot be trusted.

        With a watcher, ``on_layer`` is told after each layer what share of the pass is done.
        """
        batch = self.batch
        asked = np.flatnonzero(batch.output[: batch.n])
        if len(asked) > self.shape.n_outputs:
            raise ConfigError(f"{len(asked)} rows ask for logits, the context was made for {self.shape.n_outputs}")
        if self.stopped:
            raise Stopped
        self.model.check()
        own = batch.n, len(asked)
        with self._padded(asked):
            batch.struct.n_tokens = batch.n
            if self._watcher is not None:
                code = self._decode_watched(self._watcher, on_layer, own)
            else:
                code = api.llama_decode(self.handle, batch.struct)
        self.model.check()
        if code == _ABORTED:
            raise Stopped
        if code != 0:
            raise NativeError(f"llama_decode of {batch.n} rows failed with code {code}: {last_error('cache full?')}")

    @contextmanager
    def _padded(self, asked: NDArray[np.int_]) -> Iterator[None]:
        """Inside, the batch has as many rows as it takes; what they leave in the cache is gone afterwards.

        Rows ``asked`` for logits.

        A sequence with a state is made longer instead, since others of one row would be a pass of their own: what that
        leaves goes with the rows that are no text.
        """
        batch, first = self.batch, self.shape.n_seq
        n, start, lengthen = batch.n, int(batch.pos[0]), self.shape.states is not None
        if not lengthen and self._is_whole(n) and self._is_whole(len(asked)):
            self._asked = self._in_order[: len(asked)]
            yield
            return
        padding = batch.lengthen(self.shape.granularity) if lengthen else batch.pad(self.shape.granularity, first)
        self._asked = np.searchsorted(np.flatnonzero(batch.output[: batch.n]), asked)
        for seq in range(first, first + padding):
            self.fork(0, seq, 0, start)
        try:
            yield
        finally:
            for seq in range(first, first + padding):
                self.trim(seq, 0)
            batch.n = n

    def _is_whole(self, n: int) -> bool:
        return n == 0 or self.shape.granularity.whole(n) == n

    def _decode_watched(self, watcher: Watcher, on_layer: OnLayer | None, own: tuple[int, int]) -> int:
        self._reports.on_layer, self._reports.own = on_layer, own
        mixed = self.shape.states is not None and self.batch.n_sequences > 1  # llama.cpp has another order for these
        watcher.start_pass(self.batch.token[: 0 if mixed else own[0]])
        code = api.llama_decode(self.handle, self.batch.struct)
        watcher.end_pass(code == 0 and not self._reports.failed)
        self._reports.raise_error()
        return int(code)

    def stop(self) -> None:
        """End the decode that is under way, and refuse others, with Stopped. May be called from any thread."""
        self._stop.value = b"x"

    def resume(self) -> None:
        """Decode again."""
        self._stop.value = b""

    @property
    def stopped(self) -> bool:
        return bool(self._stop.value)

    def use_threads(self, n: int) -> None:
        """Decode with ``n`` threads from now on."""
        self.n_threads = n
        api.llama_set_n_threads(self.handle, n, n)

    @contextmanager
    def single_threaded(self) -> Iterator[None]:
        """Inside, decode with one thread."""
        api.llama_set_n_threads(self.handle, 1, 1)
        try:
            yield
        finally:
            self.use_threads(self.n_threads)

    def logits(self, n: int) -> NDArray[np.float32]:
        """Logits of the first ``n`` rows of the last batch that asked for them, [n, n_vocab].

        As a rule a view, valid until the next decode.
        """
        rows = self._asked[:n]  # others may lie between them, which a pass was filled up with
        n_all = int(rows[-1]) + 1 if len(rows) else n
        logits = as_array(api.llama_get_logits(self.handle), shape=(n_all, self.model.n_vocab))
        return logits if n_all == n else logits[rows]

    def logits_at(self, row: int) -> NDArray[np.float32]:
        """Logits of one row of the last batch, [n_vocab]; a view, valid until the next decode."""
        first = api.llama_get_logits_ith(self.handle, row).contents
        return np.frombuffer((type(first) * self.model.n_vocab).from_address(ctypes.addressof(first)), np.float32)

    @property
    def n_snapshots(self) -> int:
        """States before its last tokens that llama.cpp keeps of a sequence; it may grant fewer than were asked for."""
        return int(api.llama_n_rs_seq(self.handle))

    # KV cache -------------------------------------------------------------------------------------

    def fork(self, source: int, target: int, start: int, stop: int) -> None:
        """Make sequence ``target`` hold the cells of ``source`` at positions [start, stop) as well."""
        api.llama_memory_seq_cp(self.memory, source, target, start, stop)

    def trim(self, seq: int, start: int) -> None:
        """Take sequence ``seq`` off all cells from position ``start`` on. Cells that nobody holds are free."""
        if not api.llama_memory_seq_rm(self.memory, seq, start, -1):
            raise NativeError(f"llama.cpp cannot roll sequence {seq} back to position {start} on {self.model.path}")

    def drop_start(self, seq: int, stop: int) -> None:
        """Take sequence ``seq`` off all cells up to position ``stop``; a state that it has stays."""
        api.llama_memory_seq_rm(self.memory, seq, 0, stop)

    def copy_to(self, other: "Context") -> None:
        """Make sequence 0 of another context on the same model hold what it holds here, bit for bit."""
        other.restore(self.save())

    def save(self, seq: int = 0) -> memoryview:
        """What a sequence holds, in llama.cpp's own form.

        In layers with a sliding window llama.cpp leaves out what its last token does not see, without which the text
        could not be rolled back. So it is given pieces as long as the window, of which every token is seen.
        """
        if not self._window:
            return self._save(seq)
        saved, spare = bytearray(), self.shape.sequences - 1
        shared = self.n_held(spare)
        for start in range(0, self.n_held(seq), self._window):
            self.trim(spare, 0)
            self.fork(seq, spare, start, start + self._window)
            piece = self._save(spare)
            saved += len(piece).to_bytes(_LENGTH, "little") + piece
        self.trim(spare, 0)
        self.fork(0, spare, 0, shared)
        return memoryview(saved)

    def _save(self, seq: int) -> memoryview:
        n = api.llama_state_seq_get_size(self.handle, seq)
        buffer = (ctypes.c_uint8 * n)()
        n_saved = api.llama_state_seq_get_data(self.handle, buffer, n, seq)
        self.model.check_workers()  # of what a lost worker holds there are zeros
        return memoryview(buffer)[:n_saved]

    def restore(self, data: memoryview | bytes, seq: int = 0) -> None:
        """Make a sequence hold what was saved. Of a model with a sliding window the cache has to be empty."""
        if not self._window:
            self._restore(data, seq)
            return
        rest, spare = memoryview(data), self.shape.sequences - 1
        while rest:
            stop = _LENGTH + int.from_bytes(rest[:_LENGTH], "little")
            self._restore(rest[_LENGTH:stop], spare)
            self.fork(spare, seq, 0, self.n_held(spare))
            self.trim(spare, 0)
            rest = rest[stop:]

    def _restore(self, data: memoryview | bytes, seq: int) -> None:
        view = np.frombuffer(data, np.uint8)
        if len(view) == 0 or api.llama_state_seq_set_data(self.handle, _bytes(view), len(view), seq) == 0:
            raise NativeError(f"llama.cpp could not restore {len(view)} bytes of KV cache: {last_error('no room?')}")

    def save_state(self, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """The recurrent state of sequence 0, without keys and values, in ``into`` if it is as long."""
        n = api.llama_state_seq_get_size_ext(self.handle, 0, _STATE_ONLY)
        data = into if into is not None and len(into) == n else np.empty(n, np.uint8)
        api.llama_state_seq_get_data_ext(self.handle, _bytes(data), n, 0, _STATE_ONLY)
        self.model.check_workers()  # as in `save`
        return data

    def restore_state(self, data: NDArray[np.uint8]) -> None:
        """Make sequence 0 have a state that was saved. What it holds of keys and values stays."""
        if api.llama_state_seq_set_data_ext(self.handle, _bytes(data), len(data), 0, _STATE_ONLY) == 0:
            raise NativeError(f"llama.cpp could not restore a state of {len(data)} bytes: {last_error('no room?')}")

    def holds(self, n: int, n_bytes: int) -> bool:
        """Whether sequence 0 has the positions up to ``n`` and no others, and would be saved in ``n_bytes``."""
        first = int(api.llama_memory_seq_pos_min(self.memory, 0))  # of a model with a state its last
        whole = first == (n - 1 if self.shape.states else 0) and self.n_held() == n
        saved = len(self.save()) if self._window else int(api.llama_state_seq_get_size(self.handle, 0))
        return whole and saved == n_bytes

    def n_held(self, seq: int = 0) -> int:
        """How many positions of text a sequence holds."""
        return int(api.llama_memory_seq_pos_max(self.memory, seq)) + 1

    def clear(self) -> None:
        """Empty the cache."""
        api.llama_memory_clear(self.memory, False)


def _bytes(data: NDArray[np.uint8]) -> Any:
    return data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


class _LayerReports:
    """A ggml callback that reports each finished layer, and the experts that a mixture's layer is about to use.

    ctypes would print an exception of a callback and go on. Here it ends the pass, Ctrl-C too, and is
    raised again when the decode has returned.
    """

    def __init__(self, watcher: Watcher, model: Model) -> None:
        self._watcher, self._model = watcher, model
        self._n_experts, self._n_used = (model.header.number(f"expert_{s}") for s in ("count", "used_count"))
        architecture = model.header.architecture
        name = next((_OTHER_LAYER[start] for start in _OTHER_LAYER if architecture.startswith(start)), _LAYER)
        # What workers compute is not here to be watched, and to ask for it would cost a round trip.
        self._layers = {name.format(i).encode(): i for i in range(model.n_here)}
        self._routers = {_ROUTER.format(i).encode(): i for i in range(model.n_here if self._n_experts else 0)}
        self._asked = {*self._layers, *self._routers}
        self._error: BaseException | None = None
        self.on_layer: OnLayer | None = None
        self.own = 0, 0  # rows of the batch and of those that ask for logits, without what they are filled up with
        self.callback = api.ggml_backend_sched_eval_callback(self._on_node)

    @property
    def failed(self) -> bool:
        """Whether a report raised something during the last decode."""
        return self._error is not None

    def raise_error(self) -> None:
        """Raise what a report raised during the last decode."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _on_node(self, tensor: int, ask: bool, _user_data: int | None) -> bool:
        try:
            if self._error is None:
                name = tensor_name(tensor)
                if ask:  # of every node there is: two thousand in a pass of a mixture
                    return name in self._asked
                self._report(tensor, name)
        except BaseException as error:
            self._error = error
        return ask or self._error is None  # after an error asks for this node, and stops when it is done

    def _report(self, tensor: int, name: bytes) -> None:
        if name in self._layers:
            layer = self._layers[name]
            self._model.check()
            self._watcher.layer_done(layer)
            if self.on_layer is not None:
                self.on_layer((layer + 1) / self._model.n_layer)
        elif name in self._routers:
            layer = self._routers[name]
            order = read_tensor(tensor).reshape(-1, self._n_experts)  # a row's experts, the best first
            n_rows, n_asked = self.own
            n_own = n_asked if layer == self._model.n_layer - 1 else n_rows  # the last layer has no others
            self._watcher.experts_chosen(layer, order[:, : self._n_used], min(n_own, len(order)))
