"""Damaged files that need no model: each is read, or refused in one line."""

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cadcpp.chat.transcript import Message, Transcript
from cadcpp.chat.transcript import load as load_transcript
from cadcpp.errors import CadError
from cadcpp.ngram.estimate import estimate
from cadcpp.ngram.file import load as load_ngram
from cadcpp.ngram.file import pack
from cadcpp.telemetry.trace_summary import summarize

N = [pytest.param(400, id="some"), pytest.param(4000, id="many", marks=pytest.mark.slow)]
VOCABULARY = bytes(range(32))
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF)
SWAPS = ("null", "-1", "1e999", "[]", "{}", '""', "[" * 100_000, '"\\u001b[2J"', "9" * 5000, "NaN", "true", "\\", "\n")


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes that are changed, missing, or too many; the header is hit as often as all the rest."""
    new = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 16))):
        at = rng.randrange(rng.choice((min(len(new), 100), len(new))))
        match rng.randrange(5):
            case 0 | 1:
                new[at] = rng.choice((*NUMBERS, rng.randrange(256)))
            case 2:
                new[at : at + 8] = rng.choice((1, 2**31, 2**62, 2**63, 2**64 - 1)).to_bytes(8, "little")
            case 3:
                new = new[: max(at, 1)]
            case 4:
                new[at:at] = rng.randbytes(rng.choice((1, 8, 100)))
    return bytes(new)


def respelled(data: bytes, rng: random.Random) -> bytes:
    """JSON of which some value is another one."""
    text = data.decode()
    places = [i for i, letter in enumerate(text) if letter in ":,[" and i + 1 < len(text)]
    at = rng.choice(places) + 1
    end = min((text.find(letter, at) for letter in ",]}\n" if letter in text[at:]), default=len(text))
    return (text[:at] + rng.choice(SWAPS) + text[end:]).encode()


Damage = Callable[[bytes, random.Random], bytes]


def tried(open_file: Callable[[Path], object], path: Path, data: bytes, n: int, damages: list[Damage]) -> None:
    results = Counter[str]()
    for seed in range(n):
        rng = random.Random(seed)
        path.write_bytes(rng.choice(damages)(data, rng))
        try:
            open_file(path)
            results["read"] += 1
        except CadError as error:
            assert len(str(error).splitlines()) == 1
            results["refused"] += 1
    print(f"\n{path.name}: {dict(results)}")
    assert min(results["read"], results["refused"]) > n / 50


@pytest.mark.parametrize("n", N)
def test_an_ngram_model(tmp_path: Path, n: int) -> None:
    ids = np.random.default_rng(0).integers(0, 300, 5000)

    def use(path: Path) -> None:
        model = load_ngram(path, 300, VOCABULARY)
        tokens, logp = model.lookup(ids[:50], ids[1:51], 8)
        assert (tokens < 300).all() and np.isfinite(logp[tokens >= 0]).all()

    tried(use, tmp_path / "model.katz", pack(estimate([ids], 300), VOCABULARY), n, [damaged])


@pytest.mark.parametrize("n", N)
def test_a_transcript(tmp_path: Path, n: int) -> None:
    path = tmp_path / "chat.jsonl"
    said = [Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Yes.", (1, 2, 3))]
    Transcript(path).save([*said, Message("user", "Why?")])
    Transcript(path).add("Be", [4], last=False)
    Transcript(path).add("cause", [5, 6], last=True)
    tried(load_transcript, path, path.read_bytes(), n, [damaged, respelled])


@pytest.mark.parametrize("n", N)
def test_a_trace(tmp_path: Path, n: int) -> None:
    span = {"name": "verify", "ph": "X", "ts": 1, "dur": 5, "pid": 1, "tid": 1, "args": {"rows": 3, "accepted": 2}}
    events = [{**span, "tid": lane, "ts": 10 * lane} for lane in range(4)]
    tried(summarize, tmp_path / "trace.json", json.dumps(events).encode(), n, [damaged, respelled])
