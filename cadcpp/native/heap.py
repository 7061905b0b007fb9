"""What the C library does with memory that was freed."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_libc = ctypes.CDLL(None)


def bound_heap() -> None:
    """Have freed memory returned once 4 MiB are free; glibc would keep up to 64 MiB a thread after large buffers."""
    if set_option := getattr(_libc, "mallopt", None):  # C libraries without it keep little
        for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            set_option(option, 4 << 20)


def trim_heap() -> None:
    """Return what was freed to the system, for the buffers of a closed session leave holes in the heap."""
    if trim := getattr(_libc, "malloc_trim", None):
        trim(0)
