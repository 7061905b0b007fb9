"""One llama.cpp context: decode batches, read logits, and the verbs of its KV cache."""

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import numpy as np
from numpy.ctypeslib import as_array  # numpy would load it in the middle of the first round
from numpy.typing import NDArray

from cadcpp.errors import ConfigError, NativeError
from cadcpp.native.batch import Batch
from cadcpp.native.eval_callback import EvalCallback, Listener
from cadcpp.native.layer_reports import LayerReports, OnLayer, Watcher
from cadcpp.native.lib import api, last_error
from cadcpp.native.model import Model
from cadcpp.native.row_products import RowProducts
from cadcpp.residency.context_shape import ContextShape
from cadcpp.system.fresh_memory import zeros_freed
from cadcpp.system.heap import empty
from cadcpp.util.lifetime import Lifetime

# llama.cpp asks a C function between two operations whether to stop. strlen of a text that is empty until then says so
# without a word of Python, which would cost more than some of the operations.
_NOT_EMPTY = ctypes.cast(ctypes.CDLL(None).strlen, api.ggml_abort_callback)
_LENGTH = 8  # bytes that a piece's length takes
_ABORTED = 2  # what llama_decode then returns
_STATE_ONLY = api.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY


class Stopped(Exception):
    """A decode was ended by `Context.stop`."""


class Context:
    """KV cache and compute buffers for one model."""

    def __init__(self, model: Model, shape: ContextShape, n_threads: int, watcher: Watcher | None = None) -> None:
        """Flash attention is fixed, and so are keys in q8_0, since exact verification rests on them.

        Values may be in f16: llama.cpp takes kernels that round a single row otherwise only where keys are as well.
        """
        if n_threads < 1:
            raise ConfigError(f"n_threads must be at least 1, got {n_threads}")
        self.model, self.shape, self.n_threads = model, shape, n_threads
        # A state goes on from its last token alone, so that there a window is never rolled back.
        self._window = 0 if shape.states else int(api.llama_model_n_swa(model.handle))
        self._stack, self._life = ExitStack(), Lifetime(f"the session on {model.path}")
        self._reports = LayerReports(watcher, model) if watcher else None
        self._products = RowProducts(model) if shape.routers_by_row else None
        self._callback = EvalCallback(self._listeners())
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
        if self._callback.listeners:
            params.cb_eval = self._callback.address
        return params

    def _listeners(self) -> dict[bytes, Listener]:
        """Who is told of nodes of llama.cpp's graph, by their names."""
        sources = [source.listeners() for source in (self._reports, self._products) if source]
        return dict(chain.from_iterable(sources))

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
            code = self._decode(on_layer, own)
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

    def _decode(self, on_layer: OnLayer | None, own: tuple[int, int]) -> int:
        """llama.cpp's code for it; ``own`` as in `LayerReports`. Raises what a listener raised."""
        reports = self._reports
        if reports:
            reports.on_layer, reports.own = on_layer, own
            reports.watcher.start_pass(self._tokens(own[0]))
        asks = self._callback.begin_pass(self.handle, self.batch.n)
        code = int(api.llama_decode(self.handle, self.batch.struct))
        whole = code == 0 and not self._callback.failed
        missing = self._products.end_pass() if self._products else ()
        if reports:
            reports.watcher.end_pass(whole)
        self._callback.raise_error()
        if whole and asks and missing:
            raise NativeError(
                f"llama.cpp computes no {missing[0]} in {self.model.path}, on which its exact text rests; "
                "exact off goes without"
            )
        return code

    def _tokens(self, n: int) -> NDArray[np.int32]:
        """Those of the first ``n`` rows; none where llama.cpp has rows in another order than the batch."""
        mixed = self.shape.states is not None and self.batch.n_sequences > 1
        return self.batch.token[: 0 if mixed else n]

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
