"""A disk that fails on demand: a file system in user space with one file in it, mounted as root over /dev/fuse."""

import ctypes
import errno
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _RELEASE, _FLUSH, _INIT, _BATCH_FORGET = 1, 2, 3, 14, 15, 18, 25, 26, 42
_HEADER, _REPLY = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
_DETACH = 2  # MNT_DETACH
_DIRECT_IO = 1  # FOPEN_DIRECT_IO
_libc = ctypes.CDLL(None, use_errno=True)


def why_not() -> str | None:
    """Why none can be mounted here, or None."""
    return None if os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK) else "FUSE needs root and /dev/fuse"


class FaultyDisk:
    """``fault`` is called before each read, with its offset; an OSError it raises is what the reader gets.

    With ``direct`` I/O it has no shared mappings, as 9p and network file systems may have none.
    """

    def __init__(self, source: Path, *, direct: bool = False) -> None:
        self._open_flags = _DIRECT_IO if direct else 0
        self._source = os.open(source, os.O_RDONLY)
        self._fuse = os.open("/dev/fuse", os.O_RDWR)
        self.fault: Callable[[int], None] = lambda offset: None
        self.n_reads = 0

    def options(self) -> bytes:
        return f"fd={self._fuse},rootmode=40000,user_id=0,group_id=0".encode()

    def serve(self) -> None:
        """Answer until the disk is unmounted."""
        while True:
            try:
                data = os.read(self._fuse, 1 << 21)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):  # the asker has gone
                    continue
                os.close(self._fuse)
                os.close(self._source)
                return
            self._answer(data)

    def _answer(self, data: bytes) -> None:
        _, code, unique, node, *_ = _HEADER.unpack_from(data)
        if code in (_FORGET, _BATCH_FORGET):
            return
        try:
            error, body = 0, self._body(code, node, data[_HEADER.size :])
        except OSError as failed:
            error, body = -(failed.errno or errno.EIO), b""
        os.write(self._fuse, _REPLY.pack(_REPLY.size + len(body), error, unique) + body)

    def _body(self, code: int, node: int, data: bytes) -> bytes:
        if code == _INIT:
            return struct.pack("<IIIIHHIIHHI28x", 7, 31, 1 << 17, 0, 16, 12, 1 << 16, 1, 0, 0, 0)
        if code == _LOOKUP:
            return struct.pack("<QQQQII", 2, 0, 3600, 3600, 0, 0) + self._attributes(2)
        if code == _GETATTR:
            return struct.pack("<QII", 3600, 0, 0) + self._attributes(node)
        if code == _OPEN:
            return struct.pack("<QII", 0, self._open_flags, 0)
        if code in (_RELEASE, _FLUSH):
            return b""
        if code == _READ:
            _, offset, size = struct.unpack_from("<QQI", data)
            self.n_reads += 1
            self.fault(offset)
            return os.pread(self._source, size, offset)
        raise OSError(errno.ENOSYS, "not needed")

    def _attributes(self, node: int) -> bytes:
        size = os.fstat(self._source).st_size if node == 2 else 0
        mode = 0o100644 if node == 2 else 0o040755
        return struct.pack("<QQQQQQIIIIIIIIII", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


@contextmanager
def faulty_disk(source: Path, place: Path, *, direct: bool = False) -> Iterator[FaultyDisk]:
    """Inside, ``place / anything`` is ``source`` on a disk that can be told to fail."""
    place.mkdir()
    disk = FaultyDisk(source, direct=direct)
    if _libc.mount(b"faulty", os.fsencode(place), b"fuse", 0, disk.options()) != 0:
        raise OSError(ctypes.get_errno(), "cannot mount")
    thread = threading.Thread(target=disk.serve, daemon=True)
    thread.start()
    try:
        yield disk
    finally:
        disk.fault = lambda offset: None
        _libc.umount2(os.fsencode(place), _DETACH)
        thread.join(10)
