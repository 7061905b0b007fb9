"""Which processors there are for this process."""

import os

import psutil


def default_threads() -> int:
    """Cores that this process may run on, hyper-threads not counted."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))
