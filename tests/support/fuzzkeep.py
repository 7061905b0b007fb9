"""Takes up kept caches that somebody has tampered with, digest included; run in a process of its own."""

import json
import random
import struct
import sys
from pathlib import Path
from typing import Any

from cadcpp.kv.cache import Cache
from cadcpp.kv.saved_cache import _digest, load_cache
from tests.support.rig import Rig


def tampered(data: bytes, seed: int) -> bytes:
    """A kept cache with other tokens or another state, and a digest that is right for them."""
    rng = random.Random(seed)
    line, state = data.split(b"\n", 1)
    head: dict[str, Any] = json.loads(line)
    what = rng.randrange(6)
    if what == 0:
        wrong: tuple[Any, ...] = (-1, 2**31, 2**70, 0.5, "a", None, [1], {})
        head["tokens"] = rng.choice(
            (head["tokens"][:-3], head["tokens"] * 2, [*head["tokens"], rng.choice(wrong)], "ab", 3, {})
        )
    elif what == 1:
        state = state[: rng.randrange(len(state))]
    elif what == 2:
        state += rng.randbytes(rng.choice((1, 8, 4096)))
    elif what == 3:  # a number of the state's header, or of a cell, or before a layer
        at = rng.randrange(0, min(len(state), 1200)) // 4 * 4
        number = rng.choice((0, 1, 2, 61, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1))
        state = state[:at] + struct.pack("<I", number) + state[at + 4 :]
    elif what == 4:
        new = bytearray(state)
        for _ in range(rng.choice((1, 8, 200))):
            new[rng.randrange(rng.choice((64, 1200, len(new))))] = rng.randrange(256)
        state = bytes(new)
    else:
        state = rng.randbytes(rng.choice((0, 1, 4, 100, 5000)))
    head["sha256"] = _digest(head["tokens"], state)
    return json.dumps(head).encode() + b"\n" + state


def main() -> None:
    model, kept, path = map(Path, sys.argv[1:4])
    good = kept.read_bytes()
    rig = Rig(model, n_ctx=256, max_rows=8)
    cache = Cache(rig.context)
    for seed in json.loads(sys.stdin.read()):
        path.write_bytes(tampered(good, seed))
        taken = load_cache(cache, path)
        cache.prefill(list(range(100, 190)), 80)
        cache.clear()
        print("accepted" if taken else "refused", seed, flush=True)
    rig.close()


if __name__ == "__main__":
    main()
