"""Load a model without reading its weights.

llama.cpp maps a model with MAP_POPULATE, which reads all of it at load. Here it is given a sparse stub
instead (the real header, then a hole), and the real file is mapped over the stub's mapping afterwards.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cadcpp.gguf.header import Header, Part
from cadcpp.system.mapping import Segment, map_over, mappings


class Stub:
    """Sparse files to load in place of a model's files.

    Populating even a hole takes page cache. So the files are cut to their headers right before they are
    mapped, which leaves nothing to populate, and grown again before anything can be read from them.
    """

    def __init__(self, header: Header, folder: Path) -> None:
        self._parts, self._folder = header.parts, folder
        self.path = folder / header.path.name

    def on_log(self, line: str) -> None:
        """Cut when llama.cpp says that it begins with the tensors; without that line, loading is only slower."""
        if "loading model tensors" in line:
            self._resize(lambda part: part.data_offset)

    def on_progress(self) -> None:
        """Grow: llama.cpp has mapped the files."""
        self._resize(lambda part: part.n_bytes)

    def _resize(self, size: Callable[[Part], int]) -> None:
        with contextlib.suppress(OSError):
            for part in self._parts:
                os.truncate(self._folder / part.path.name, size(part))


@contextlib.contextmanager
def stub_of(header: Header) -> Iterator[Stub | None]:
    """A stub to load in place of a model, or None where none can be made."""
    folder = _write_stub(header)
    try:
        yield Stub(header, folder) if folder else None
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _write_stub(header: Header) -> Path | None:
    if not Path("/proc/self/maps").exists():
        return None
    try:
        folder = Path(tempfile.mkdtemp(prefix="cadcpp-"))
    except OSError:
        return None
    try:
        for part in header.parts:
            _write_stub_part(part, folder / part.path.name)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return folder


def _write_stub_part(part: Part, stub: Path) -> None:
    with part.path.open("rb") as source, stub.open("wb") as target:
        target.write(source.read(part.data_offset))
        target.truncate(part.n_bytes)
        target.flush()
        if os.fstat(target.fileno()).st_blocks * 512 > part.data_offset + (1 << 20):
            raise OSError("this file system has no holes")


def remap(header: Header, stub: Path) -> list[Segment] | None:
    """Map the real files over the loaded stub's mappings; None, with nothing changed, if they are not found."""
    found = [
        (start, stop, offset, index)
        for start, stop, offset, path in mappings()
        for index, part in enumerate(header.parts)
        if path == str(stub.with_name(part.path.name).resolve())
    ]
    if {index for *_, index in found} != set(range(len(header.parts))):
        return None
    return [map_over(header.parts[index], index, start, stop, offset) for start, stop, offset, index in found]
