"""How fast the machine is just now: what is measured minutes apart is compared with that in mind."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

_SECONDS = 1.0
_BLOCK = bytes(1 << 20)  # fits into a cache, so that memory's speed has no part in it


def machine_speed(seconds: float = _SECONDS) -> float:
    """MB that all cores together hash a second, in a loop of so many seconds."""
    n_cores, stop = os.cpu_count() or 1, time.perf_counter() + seconds
    with ThreadPoolExecutor(n_cores) as pool:
        n_blocks = sum(pool.map(lambda _: _hash_until(stop), range(n_cores)))
    return n_blocks * len(_BLOCK) / 1e6 / seconds


def _hash_until(stop: float) -> int:
    n = 0
    while time.perf_counter() < stop:
        sha256(_BLOCK).digest()  # lets other threads run
        n += 1
    return n
