"""One loaded model: weights and vocabulary."""

import ctypes
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from cadcpp.errors import ConfigError, ModelError, NativeError, RecurrentError
from cadcpp.gguf.blocks import block_of, state_bytes
from cadcpp.gguf.header import Header, read_header
from cadcpp.gguf.validate import check_generative, check_vocabulary
from cadcpp.native.lib import api, last_error, listening, quiet
from cadcpp.native.repacking import Overrides, repackable
from cadcpp.native.rpc import Spread
from cadcpp.system.file_guard import Guard
from cadcpp.system.mapping import Mapping, Segment, forget, has_maps, is_shareable, mapped, mount_of, sharing
from cadcpp.system.scratch_file import place_name, scratch_folders
from cadcpp.system.stub import LOADS_WHOLE, NO_MAPS, NOT_PAGED, NOT_STREAMED, Sending, Stub, no_place, refusal
from cadcpp.util.lifetime import Lifetime

_STAYS = "^(output|token_embd)"  # tensors that no worker gets: logits would be most of what goes over the link
_ADD_NOTHING = (api.LLAMA_VOCAB_TYPE_RWKV, api.LLAMA_VOCAB_TYPE_PLAMO2)  # vocabularies, whatever their files want


class Model:
    """Weights and vocabulary of one GGUF file.

    ``repacked`` copies the weights into anonymous memory, in the layout of the fastest kernels. Without ``vocabulary``
    that is left out: a draft's tokens are its verifier's. ``stub`` loads without reading the weights, where the system
    allows; `mapping` then controls which of them are in memory, and ``limited`` says what of that is not to be had.
    With ``spread`` a part of its blocks is sent to workers, which compute them.
    """

    rope: tuple[float, float] = (0.0, 0.0)  # frequency base and scale of contexts that are made; 0: the file's own

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        vocabulary: bool = True,
        stub: bool = False,
        repacked: bool = False,
        header: Header | None = None,
        spread: Spread | None = None,
    ) -> None:
        """``header`` is the file's, where it was read already."""
        self.path = Path(path)
        self.header: Header = header or read_header(self.path)
        check_generative(self.header)
        self._vocabulary, self._repacked, self._spread = vocabulary, repacked, spread
        if vocabulary:
            check_vocabulary(self.header)
        self._stack, self._life = ExitStack(), Lifetime(f"the session on {self.path}")
        self.in_use = threading.RLock()  # by whoever reads the vocabulary, which may be another thread than closes it
        # What llama.cpp cannot map by itself is copied into memory, as what is repacked.
        self._copied = repacked or not (stub or all(is_shareable(part.path) for part in self.header.parts))
        self._guard = Guard(() if self._copied else self.header.parts)  # copied weights are its own
        self.mapping: Mapping | None = None
        self.limited = ""
        try:
            self._guard.watch(self._load_streaming() if stub else self._load_mapped())
            self.check()
            self._check_kind()
        except BaseException:
            self.close()
            raise
        self.n_vocab: int = api.llama_vocab_n_tokens(self.vocab)
        self.n_ctx_train: int = api.llama_model_n_ctx_train(self.handle)
        self.n_layer: int = api.llama_model_n_layer(self.handle)
        self.n_here = spread.first if spread else self.n_layer  # of these the first ones, which this machine computes
        self._pieces: dict[tuple[int, bool], bytes] = {}

    def check(self) -> None:
        """Raises ModelError if the file was cut or changed since it was loaded, or could not be read.

        Raises WorkerError if a worker that computes a part of it is lost.
        """
        self._guard.check()
        self.check_workers()

    def check_workers(self) -> None:
        """Raises WorkerError if a worker that computes a part of it is lost."""
        if self._spread is not None:
            self._spread.check()

    def _load_mapped(self) -> list[Segment]:
        """Load as llama.cpp does; returns where the file is mapped now."""
        before = mapped(self.header)
        self._load(*(part.path for part in self.header.parts))
        return [segment for segment in mapped(self.header) if segment not in before]

    def _load_streaming(self) -> list[Segment]:
        """Load without reading the weights if there is a place for a stub, else as llama.cpp does."""
        for part in self.header.parts:
            sharing(part.path)  # raises ModelError where no mapping is possible
        refused: list[str] = []
        for folder in scratch_folders(self.path.parent) if has_maps() else ():
            try:
                with closing(Stub(self.header, folder)) as stub:
                    segments = self._load_stub(stub)
            except OSError as error:
                refused.append(refusal(folder, error))
                continue
            if segments is not None:
                self._take_mapping(segments)
                return segments
            refused.append(f"{place_name(folder)}: its mapping is not found")
            self._stack.close()
        return self._load_whole(no_place(self.header, refused) if refused else NO_MAPS)

    def _load_stub(self, stub: Stub) -> list[Segment] | None:
        if self._spread is not None:
            return self._load_sending(stub)
        with listening(stub.on_log):
            self._load(*stub.paths, on_progress=stub.on_progress)
        return stub.remap()

    def _load_sending(self, stub: Stub) -> list[Segment] | None:
        """Load where workers are sent what they compute: the real files are there before the first of it is read."""
        before, sent = mapped(self.header), Sending(self.header, stub)
        with listening(stub.on_log):
            self._load(*stub.paths, on_progress=sent.on_progress)
        return [segment for segment in mapped(self.header) if segment not in before] if sent.finish() else None

    def _load_whole(self, reason: str) -> list[Segment]:
        """Load by reading all weights, of which what is not to stay is let go of afterwards."""
        for part in self.header.parts:
            if not is_shareable(part.path):
                mount = mount_of(part.path)
                raise ModelError(f"{NOT_STREAMED}: {reason}; and {mount} has no shared mappings: copy {part.path}")
        segments = self._load_mapped()
        found = {segment.part for segment in segments} == set(range(len(self.header.parts)))
        if found:
            self._take_mapping(segments).drop_all()
        self.limited = f"{LOADS_WHOLE if found else NOT_PAGED}: {reason}"
        return segments

    def _take_mapping(self, segments: list[Segment]) -> Mapping:
        self.mapping = Mapping(self.header.parts, segments)
        self._stack.callback(self.mapping.close)
        return self.mapping

    def _load(self, *paths: Path, on_progress: Callable[[], None] | None = None) -> None:
        quiet()  # whoever has imported llama_cpp since has llama.cpp's log, in which loading is followed
        params = api.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = False
        overrides = Overrides(self._repackable(), [_STAYS] if self._spread else [])
        params.tensor_buft_overrides = overrides.address
        placed = self._spread.apply(params, self.header.number("block_count")) if self._spread else None
        # A mapped file would keep in the page cache what is repacked besides.
        params.load_mode = api.LLAMA_LOAD_MODE_NONE if self._copied else api.LLAMA_LOAD_MODE_MMAP
        if not self._vocabulary:
            params.kv_overrides = without_vocabulary(self.header)
        if on_progress is not None:
            params.progress_callback = _progress_callback(on_progress)
        names = (ctypes.c_char_p * len(paths))(*map(os.fsencode, paths))
        handle = api.llama_model_load_from_splits(names, len(paths), params)
        del placed
        if not handle:
            self.check()
            raise ModelError(f"llama.cpp cannot load {self.path}: {last_error('no reason given')}")
        self._handle = int(handle)
        self._stack.callback(api.llama_model_free, self._handle)
        if self._copied:
            forget(self.header)

    def _repackable(self) -> list[str]:
        """Tensors that are repacked; workers take theirs as they come."""
        if not self._repacked:
            return []
        names = repackable(self.header)
        if self._spread is None:
            return names
        first, blocks = self._spread.first, {tensor.name: block_of(tensor) for tensor in self.header.tensors}
        return [name for name in names if (block := blocks[name]) is None or block < first]

    def _check_kind(self) -> None:
        recurrent = api.llama_model_is_recurrent(self.handle) or api.llama_model_is_hybrid(self.handle)
        if recurrent and not state_bytes(self.header):
            raise RecurrentError(
                f"{self.path} is a {self.header.architecture} model, whose kind of recurrent state cadcpp does not "
                "know: choose another model"
            )
        two_sided = api.llama_model_has_encoder(self.handle) or not api.llama_model_has_decoder(self.handle)
        if two_sided or api.llama_model_is_diffusion(self.handle):
            raise ModelError(
                f"{self.path} is a {self.header.architecture} model, which does not write text token by token"
            )

    def close(self) -> None:
        """Free the weights; contexts on them must be closed first. May be called twice."""
        with self.in_use:
            self._life.end()
            self._guard.close()
            self._stack.close()

    @property
    def handle(self) -> int:
        """llama.cpp's own. Raises ClosedError once it is freed."""
        self._life.check()
        return self._handle

    # vocabulary -----------------------------------------------------------------------------------

    @property
    def vocab(self) -> Any:
        """llama.cpp's own. Raises ClosedError once it is freed."""
        return api.llama_model_get_vocab(self.handle)

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        """Inside, the vocabulary is there. Raises ClosedError if it is not any more."""
        self._life.check()
        with self.in_use:
            yield self.vocab

    @property
    def chat_template(self) -> str | None:
        """The model's own chat template (Jinja), if it has one."""
        with self._reading():
            text = api.llama_model_chat_template(self.handle, None)
        return text.decode("utf-8", "replace") if text else None

    @property
    def bos(self) -> int:
        """The token that begins a text; -1 if there is none."""
        with self._reading() as vocab:
            return int(api.llama_vocab_bos(vocab))

    @property
    def eos(self) -> int:
        """The token that ends a text; -1 if there is none."""
        with self._reading() as vocab:
            return int(api.llama_vocab_eos(vocab))

    @property
    def adds_bos(self) -> bool:
        """Whether llama.cpp puts `bos` in front of every text, as the file wants."""
        with self._reading() as vocab:
            asked = api.llama_vocab_get_add_bos(vocab) and api.llama_vocab_type(vocab) not in _ADD_NOTHING
            return bool(asked) and self.bos >= 0

    def is_end(self, token: int) -> bool:
        """Whether the token ends a text (end of sequence, of turn, ...)."""
        with self._reading() as vocab:
            return bool(api.llama_vocab_is_eog(vocab, token))

    def end_tokens(self) -> list[int]:
        """All tokens that end a text."""
        with self._reading() as vocab:
            return [token for token in range(self.n_vocab) if api.llama_vocab_is_eog(vocab, token)]

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of a text that is to go on; ``add_special`` puts `bos` in front of it where the file wants that.

        An end token, which some files want behind every text, is left out: nothing goes on after it. llama.cpp's own
        tool for completions refuses such a file.
        """
        ids = self._tokenize(text, parse_special)
        return [self.bos, *ids] if add_special and self.adds_bos else ids

    def _tokenize(self, text: str, parse_special: bool) -> list[int]:
        data = text.encode("utf-8", "surrogateescape")
        room = len(data) + 8
        buffer = (ctypes.c_int32 * room)()
        with self._reading() as vocab:  # which is asked for no token of its own: one that it lacks ends the process
            n = api.llama_tokenize(vocab, data, len(data), buffer, room, False, parse_special)
        if n < 0:
            raise NativeError(f"llama.cpp could not tokenize a text of {len(data)} bytes (code {n})")
        return list(buffer[:n])

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes that one token stands for; control tokens are empty unless ``special``."""
        self._life.check()
        key = (token, special)
        if key not in self._pieces:
            self._pieces[key] = self._read_piece(token, special)
        return self._pieces[key]

    def _read_piece(self, token: int, special: bool) -> bytes:
        if not 0 <= token < self.n_vocab:
            raise ConfigError(f"token {token} is outside the vocabulary of {self.n_vocab}")
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            with self._reading() as vocab:
                n = api.llama_token_to_piece(vocab, token, buffer, room, 0, special)
            if n >= 0:
                return buffer.raw[:n]
            room = -n

    def detokenize(self, tokens: Iterable[int], *, special: bool = False) -> bytes:
        """The bytes of a token sequence, piece by piece."""
        return b"".join(self.piece(token, special=special) for token in tokens)


def without_vocabulary(header: Header) -> Any:
    """Overrides of a file's metadata that spare some 350 bytes for each of its tokens."""
    overrides = (api.llama_model_kv_override * 3)()  # the last one, empty, ends the list
    overrides[0].key, overrides[0].tag = b"tokenizer.ggml.model", api.LLAMA_KV_OVERRIDE_TYPE_STR
    overrides[0].value.val_str = b"none"
    overrides[1].key, overrides[1].tag = f"{header.architecture}.vocab_size".encode(), api.LLAMA_KV_OVERRIDE_TYPE_INT
    overrides[1].value.val_i64 = header.n_vocab
    return overrides


def _progress_callback(on_progress: Callable[[], None]) -> Any:
    def report(_fraction: float, _user_data: int | None) -> bool:
        on_progress()
        return True

    return api.llama_progress_callback(report)
