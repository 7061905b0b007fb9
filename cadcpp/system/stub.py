"""Sparse files to load in a model's place, so that loading reads no weights.

llama.cpp maps a model with MAP_POPULATE, which reads all of it at load. Here it is given a sparse stub
instead (the real header, then a hole), and the real file is mapped over the stub's mapping afterwards.
"""

import contextlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from cadcpp.errors import ModelError
from cadcpp.gguf.header import Header, Part
from cadcpp.system.mapping import Mapped, Mapping, Segment, has_maps, is_shareable, map_over, mappings
from cadcpp.system.scratch_file import ScratchFile, place_name, scratch_folders

_NO_HOLES = 1 << 20  # bytes that a hole may take
LOADS_WHOLE = "loading reads all weights"
NOT_PAGED = "weights are left to the system, which reads them by page faults"
NOT_STREAMED = "weights cannot be streamed"
NO_MAPS = "this system does not tell where files are mapped (/proc/self/maps)"


class Stub:
    """Sparse files with the headers of a model's files.

    Populating even a hole takes memory. So the files are cut to their headers right before they are
    mapped, which leaves nothing to populate, and grown again before anything can be read from them.
    """

    def __init__(self, header: Header, folder: Path | None) -> None:
        """In a folder, or in memory. Raises OSError."""
        self._parts, self._stack = header.parts, ExitStack()
        self._files: list[ScratchFile] = []
        try:
            for part in header.parts:
                self._files.append(ScratchFile(folder))
                self._stack.callback(self._files[-1].close)
                _write_header(part, self._files[-1].fd)
        except BaseException:
            self.close()
            raise

    @property
    def paths(self) -> list[Path]:
        return [file.path for file in self._files]

    def on_log(self, line: str) -> None:
        """Cut when llama.cpp says that it begins with the tensors; without that line, loading is only slower."""
        if "loading model tensors" in line:
            self._resize(lambda part: part.data_offset)

    def on_progress(self) -> None:
        """Grow: llama.cpp has mapped the files."""
        self._resize(lambda part: part.n_bytes)

    def _resize(self, size: Callable[[Part], int]) -> None:
        with contextlib.suppress(OSError):
            for part, file in zip(self._parts, self._files, strict=True):
                os.ftruncate(file.fd, size(part))

    def remap(self) -> list[Segment] | None:
        """Map the real files over the loaded stub's mappings; None, with nothing changed, if they are not found."""
        found = [(i, mapped) for mapped in mappings() for i, file in enumerate(self._files) if _is(mapped, file)]
        if {i for i, _ in found} != set(range(len(self._parts))):
            return None
        return [map_over(self._parts[i], i, mapped) for i, mapped in found]

    def close(self) -> None:
        self._stack.close()


class Sending:
    """A load on a stub that reads some of the weights, to send them away: what was read is let go of."""

    def __init__(self, header: Header, stub: Stub) -> None:
        self._parts, self._stub = header.parts, stub
        self._begun = False
        self._mapping: Mapping | None = None
        self._error: ModelError | None = None

    def on_progress(self) -> None:
        """A tensor comes next: before the first one the real files take the stub's place."""
        if not self._begun:
            self._begun = True
            self._stub.on_progress()
            self._map()
        elif self._mapping is not None:
            self._mapping.drop_all()

    def _map(self) -> None:
        try:
            segments = self._stub.remap()
        except ModelError as error:  # nobody would hear of it in here
            self._error = error
            return
        self._mapping = Mapping(self._parts, segments) if segments is not None else None

    def finish(self) -> bool:
        """Let go of the last one; whether the real files were there. Raises ModelError if they could not be mapped."""
        if self._error is not None:
            raise self._error
        if self._mapping is None:
            return False
        self._mapping.drop_all()
        self._mapping.close()
        return True


def foreseen_limits(header: Header) -> str:
    """What streaming cannot do here, and why, as far as it can be told before a model is loaded; mostly empty."""
    if not has_maps():
        return f"{NOT_PAGED}: {NO_MAPS}"
    refused = []
    for folder in scratch_folders(header.path.parent):
        try:
            Stub(header, folder).close()
        except OSError as error:
            refused.append(refusal(folder, error))
        else:
            return ""
    whole = all(is_shareable(part.path) for part in header.parts)
    return f"{LOADS_WHOLE if whole else NOT_STREAMED}: {no_place(header, refused)}"


def refusal(folder: Path | None, error: OSError) -> str:
    """What a place says to a stub."""
    return f"{place_name(folder)}: {error.strerror or error}"


def no_place(header: Header, refused: list[str]) -> str:
    """Why there is no stub, by what all places say."""
    n_bytes = max(part.data_offset for part in header.parts)
    return f"no place takes {max(n_bytes >> 20, 1)} MiB of a file with holes ({'; '.join(refused)})"


def _is(mapped: Mapped, file: ScratchFile) -> bool:
    """By its name, for not every file system tells stat's device here, or by its number, for proot changes paths."""
    state = os.fstat(file.fd)
    return file.name in mapped.path or (mapped.device, mapped.inode) == (state.st_dev, state.st_ino)


def _write_header(part: Part, fd: int) -> None:
    with part.path.open("rb") as source, os.fdopen(os.dup(fd), "wb") as target:
        target.write(source.read(part.data_offset))
        target.truncate(part.n_bytes)
        target.flush()
        if os.fstat(target.fileno()).st_blocks * 512 > part.data_offset + _NO_HOLES:
            raise OSError("this file system has no holes")
