"""Memory that nobody uses goes back to the system."""

import ctypes
import mmap

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_libc = ctypes.CDLL(None)
_ADVICE = getattr(mmap, "MADV_DONTNEED", None)


def bound_heap() -> None:
    """Have freed memory returned once 4 MiB are free; glibc would keep up to 64 MiB a thread after large buffers."""
    if set_option := getattr(_libc, "mallopt", None):  # C libraries without it keep little
        for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            set_option(option, 4 << 20)


def trim_heap() -> None:
    """Return what was freed to the system, for the buffers of a closed session leave holes in the heap."""
    if trim := getattr(_libc, "malloc_trim", None):
        trim(0)


def empty(address: int, n_bytes: int) -> None:
    """Return the pages of a buffer whose contents do not matter; they come again, as zeros, when they are touched."""
    start, stop = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE, (address + n_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if _ADVICE is not None and start < stop:
        _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), _ADVICE)
