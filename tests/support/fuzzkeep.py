"""Takes up kept caches that somebody has tampered with, digest included; run in a process of its own."""

import json
import random
import struct
import sys
from pathlib import Path
from typing import Any

from cadcpp.kv.saved_cache import _digest, load_cache
from cadcpp.kv.state_cache import cache_of
from tests.support.rig import Rig


def tampered(data: bytes, seed: int) -> bytes:
    """A kept cache with other tokens, another state or another mark, and digests that are right for them."""
    rng = random.Random(seed)
    line, rest = data.split(b"\n", 1)
    head: dict[str, Any] = json.loads(line)
    state, marks = rest[: head["bytes"]], rest[head["bytes"] :]
    if marks and rng.random() < 0.5:
        n, n_bytes, _ = head["marks"][0]
        first = _other(marks[:n_bytes], rng, rng.randrange(1, 6))
        n = rng.choice((n, n, 1, n - 1, len(head["tokens"])))
        head["marks"][0] = [n, len(first), _digest(head["tokens"][:n], first)]
        return json.dumps(head).encode() + b"\n" + state + first + marks[n_bytes:]
    what = rng.randrange(6)
    if what == 0:
        wrong: tuple[Any, ...] = (-1, 2**31, 2**70, 0.5, "a", None, [1], {})
        head["tokens"] = rng.choice(
            (head["tokens"][:-3], head["tokens"] * 2, [*head["tokens"], rng.choice(wrong)], "ab", 3, {})
        )
    else:
        state = _other(state, rng, what)
    head["sha256"], head["bytes"] = _digest(head["tokens"], state), len(state)
    return json.dumps(head).encode() + b"\n" + state + marks


def _other(state: bytes, rng: random.Random, what: int) -> bytes:
    if what == 1:
        return state[: rng.randrange(len(state))]
    if what == 2:
        return state + rng.randbytes(rng.choice((1, 8, 4096)))
    if what == 3:  # a number of the state's header, or of a cell, or before a layer
        at = rng.randrange(0, min(len(state), 1200)) // 4 * 4
        number = rng.choice((0, 1, 2, 61, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1))
        return state[:at] + struct.pack("<I", number) + state[at + 4 :]
    if what == 4:
        new = bytearray(state)
        for _ in range(rng.choice((1, 8, 200))):
            new[rng.randrange(min(rng.choice((64, 1200, len(new))), len(new)))] = rng.randrange(256)
        return bytes(new)
    return rng.randbytes(rng.choice((0, 1, 4, 100, 5000)))


def main() -> None:
    model, kept, path = map(Path, sys.argv[1:4])
    good = kept.read_bytes()
    rig = Rig(model, n_ctx=256, max_rows=8)
    cache, text = cache_of(rig.context), list(range(100, 190))
    for seed in json.loads(sys.stdin.read()):
        path.write_bytes(tampered(good, seed))
        taken = load_cache(cache, path)
        cache.align([*text[:50], 7])  # a part of it alone, from a mark if there is one
        cache.prefill(text, 80)
        cache.clear()
        print("accepted" if taken else "refused", seed, flush=True)
    rig.close()


if __name__ == "__main__":
    main()
