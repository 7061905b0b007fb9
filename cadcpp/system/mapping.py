"""Mapped files, and the verbs of paging on them."""

import ctypes
import errno
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.ctypeslib import as_array
from numpy.typing import NDArray

from cadcpp.errors import ModelError
from cadcpp.gguf.header import Header, Part

PAGE = mmap.PAGESIZE
_POPULATE_READ = 22  # MADV_POPULATE_READ, Linux 5.14
_HUGEPAGE = 14  # MADV_HUGEPAGE, where the kernel has them
_MAP_FIXED = 0x10
_MREMAP_FIXED = 3  # and that it may move
_FAILED = 2 ** (8 * ctypes.sizeof(ctypes.c_void_p)) - 1  # what mmap gives then

_libc = ctypes.CDLL(None, use_errno=True)
_pointer, _size = ctypes.c_void_p, ctypes.c_size_t
_libc.mmap.restype, _libc.mmap.argtypes = _pointer, (_pointer, _size, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.madvise.argtypes = (_pointer, _size, ctypes.c_int)
_libc.munmap.argtypes = (_pointer, _size)
_libc.mincore.argtypes = (_pointer, _size, _pointer)
if hasattr(_libc, "mremap"):  # Linux's own
    _libc.mremap.restype, _libc.mremap.argtypes = _pointer, (_pointer, _size, _size, ctypes.c_int, _pointer)
_libc.mlock.argtypes = _libc.munlock.argtypes = (_pointer, _size)


@dataclass(frozen=True, slots=True)
class Segment:
    """A mapped stretch of one file: file bytes [start, stop) lie at ``address``."""

    part: int
    start: int
    stop: int
    address: int


@dataclass(frozen=True, slots=True)
class Mapped:
    """A line of /proc/self/maps: file bytes from ``offset`` on lie at [start, stop)."""

    start: int
    stop: int
    offset: int
    device: int
    inode: int
    path: str


class Mapping:
    """Mapped files of one model, and what can be asked of the kernel about byte ranges of them.

    Everything here is advice: whatever fails, a page that is missing is read when it is touched. Only what
    cannot be read at all is an error, since whoever touches it would be killed.
    """

    def __init__(self, parts: tuple[Part, ...], segments: list[Segment]) -> None:
        self._segments, self._parts = segments, parts
        self._fds = [os.open(part.path, os.O_RDONLY) for part in parts]
        self._flags = [sharing(part.path) for part in parts]
        self._populates = True

    def close(self) -> None:
        """Close the files; the mapping itself belongs to llama.cpp. May be called twice."""
        while self._fds:
            os.close(self._fds.pop())

    def will_need(self, part: int, start: int, stop: int) -> None:
        """Start reading a range."""
        with suppress(OSError):
            os.posix_fadvise(self._fds[part], start, stop - start, os.POSIX_FADV_WILLNEED)

    def huge(self, part: int, start: int, stop: int) -> bool:
        """Read a range in huge pages from now on: a twentieth of the kernel's work, where it has them.

        Asking ahead would bring small pages, so a huge range is only populated; that reads ahead by itself.
        """
        if PAGE != 4096:  # a huge page would be as large as a layer
            return False
        return all(_libc.madvise(address, n, _HUGEPAGE) == 0 for address, n in self._addresses(part, start, stop))

    def populate(self, part: int, start: int, stop: int) -> None:
        """Wait until a range is in memory, and map it. Raises ModelError if it cannot be read."""
        if self._populates:
            if all(_libc.madvise(address, n, _POPULATE_READ) == 0 for address, n in self._addresses(part, start, stop)):
                return
            self._populates = ctypes.get_errno() != errno.EINVAL
        self._read(part, start, stop)

    def in_memory(self, part: int, start: int, stop: int) -> bool:
        """Whether all of a range is, as far as the system tells: of others' files it may say yes of everything."""
        for address, n in self._addresses(part, start, stop):
            if not pages_in_memory(address, n, otherwise=True).all():
                return False
        return True

    def _read(self, part: int, start: int, stop: int) -> None:
        """What an older kernel has instead: reading fills the page cache, faults then only map. Tells what fails."""
        path = self._parts[part].path
        try:
            while start < stop:
                n = len(os.pread(self._fds[part], stop - start, start))
                if n == 0:
                    raise ModelError(f"{path} ends at byte {start} now: put it back and start again")
                start += n
        except OSError as error:
            raise ModelError(f"cannot read {path} at byte {start}: {error.strerror}; check its disk") from None

    def drop(self, part: int, start: int, stop: int) -> None:
        """Give a range's memory back: unmapping alone would leave it in the page cache."""
        for address, n in self._addresses(part, start, stop):
            _libc.madvise(address, n, mmap.MADV_DONTNEED)
        with suppress(OSError):
            os.posix_fadvise(self._fds[part], start, stop - start, os.POSIX_FADV_DONTNEED)

    def drop_all(self) -> None:
        """Give the memory of all weights back."""
        for segment in self._segments:
            self.drop(segment.part, segment.start, segment.stop)

    def lock(self, part: int, start: int, stop: int) -> bool:
        """Keep a range in memory whatever happens, if this process may."""
        return all(_libc.mlock(address, n) == 0 for address, n in self._addresses(part, start, stop))

    def unlock(self, part: int, start: int, stop: int) -> None:
        """Let the kernel take a locked range again."""
        for address, n in self._addresses(part, start, stop):
            _libc.munlock(address, n)

    def copy(self, part: int, start: int, stop: int) -> bool:
        """Put a copy in anonymous memory in the place of a populated range, which somebody may be reading."""
        return all([self._copy(part, address, n) for address, n in self._whole_pages(part, start, stop)])

    def map_file(self, part: int, start: int, stop: int) -> None:
        """Put the file itself in the place of a copy again."""
        flags = self._flags[part] | _MAP_FIXED
        for address, n in self._whole_pages(part, start, stop):
            _libc.mmap(address, n, mmap.PROT_READ, flags, self._fds[part], self._offset(address))

    def _copy(self, part: int, address: int, n: int) -> bool:
        made = _libc.mmap(None, n, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        if made in (None, _FAILED):
            return False
        ctypes.memmove(made, address, n)  # reading the file would read ahead as well
        # Moved as a whole: at no time is there anything else than the weights.
        if _libc.mremap(made, n, n, _MREMAP_FIXED, ctypes.c_void_p(address)) != address:
            _libc.munmap(made, n)
            return False
        os.posix_fadvise(self._fds[part], self._offset(address), n, os.POSIX_FADV_DONTNEED)
        return True

    def _whole_pages(self, part: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Without pages that a neighbour has a share in, which is dropped at other times: a copy would be lost."""
        yield from self._addresses(part, -(-start // PAGE) * PAGE, stop // PAGE * PAGE)

    def _offset(self, address: int) -> int:
        """Where in its file the page at an address lies."""
        segment = next(s for s in self._segments if s.address <= address < s.address + s.stop - s.start)
        return segment.start + address - segment.address

    def _addresses(self, part: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
        for segment in self._segments:
            low, high = max(start, segment.start), min(stop, segment.stop)
            if segment.part == part and low < high:
                low = low // PAGE * PAGE
                yield segment.address + low - segment.start, high - low


def pages_in_memory(address: int, n_bytes: int, *, otherwise: bool) -> NDArray[np.bool_]:
    """Which pages from an address on are in memory; ``otherwise`` for all of them where the system does not tell."""
    pages = (ctypes.c_uint8 * -(-n_bytes // PAGE))()
    is_told = _libc.mincore(address, n_bytes, pages) == 0
    return as_array(pages) % 2 == 1 if is_told else np.full(len(pages), otherwise)


def blank(segments: Iterable[Segment]) -> None:
    """Map zeros, which need no memory, over what was mapped."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
    for segment in segments:
        _libc.mmap(segment.address, segment.stop - segment.start, mmap.PROT_READ, flags, -1, 0)


def mapped(header: Header) -> list[Segment]:
    """Where a plainly loaded model's files are mapped."""
    names = [(str(part.path.resolve()), os.stat(part.path)) for part in header.parts]
    return [
        Segment(index, found.offset, found.offset + found.stop - found.start, found.start)
        for found in mappings()
        for index, (path, state) in enumerate(names)
        if found.path == path or (found.device, found.inode) == (state.st_dev, state.st_ino)
    ]


def has_maps() -> bool:
    """Whether this system tells where files are mapped."""
    return Path("/proc/self/maps").exists()


def mappings() -> Iterator[Mapped]:
    """Every mapped file of this process."""
    for start, stop, fields in memory_map():
        if len(fields) == 6 and fields[5].startswith("/"):
            device = os.makedev(*(int(x, 16) for x in fields[3].split(":")))
            yield Mapped(start, stop, int(fields[2], 16), device, int(fields[4]), fields[5])


def memory_map() -> Iterator[tuple[int, int, list[str]]]:
    """Every stretch of this process's memory: from ... to ..., and the fields of its line in /proc/self/maps."""
    try:
        lines = Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for fields in (line.split(maxsplit=5) for line in lines):
        start, stop = (int(x, 16) for x in fields[0].split("-"))
        yield start, stop, fields


def sharing(path: Path) -> int:
    """How a file can be mapped: MAP_SHARED as a rule, MAP_PRIVATE where its file system has only that.

    What nobody writes to is the same in both. Raises ModelError, which names the mount, if it cannot be mapped at all.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        for flags in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
            address = _libc.mmap(None, PAGE, mmap.PROT_READ, flags, fd, 0)
            if address not in (None, _FAILED):
                _libc.munmap(address, PAGE)
                return flags
        reason = os.strerror(ctypes.get_errno())
    finally:
        os.close(fd)
    raise ModelError(f"{path} cannot be mapped: {reason}; copy it from {mount_of(path)} to a disk")


def is_shareable(path: Path) -> bool:
    """Whether llama.cpp can map a file by itself."""
    try:
        return sharing(path) == mmap.MAP_SHARED
    except ModelError:
        return False


def mount_of(path: Path) -> Path:
    """Where the file system that a file is on is mounted."""
    return next(folder for folder in path.resolve().parents if folder.is_mount())


def forget(header: Header) -> None:
    """Take a model's files out of the page cache, as far as nobody has them mapped."""
    if not hasattr(os, "posix_fadvise"):
        return
    for part in header.parts:
        fd = os.open(part.path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def map_over(part: Part, index: int, found: Mapped) -> Segment:
    """Map a file in the place of another."""
    fd = os.open(part.path, os.O_RDONLY)
    try:
        flags, n = sharing(part.path) | _MAP_FIXED, found.stop - found.start
        address = _libc.mmap(found.start, n, mmap.PROT_READ, flags, fd, found.offset)
    finally:
        os.close(fd)
    if address != found.start:  # half of the weights would be holes: there is no way on from here
        raise ModelError(f"cannot map {part.path}: {os.strerror(ctypes.get_errno())}; copy it to another disk")
    return Segment(index, found.offset, found.offset + n, found.start)
