"""Records of a run, read and put together: medians with their range, and whether the texts are the same."""

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.measure.record import RESULTS, ROOT

MEASURED = ROOT / "bench" / "measured" / "report.jsonl"  # of the last whole run
Record = dict[str, Any]
EXACT = ("n", "text")  # the same in every run of a cell, on one machine


@dataclass(frozen=True, slots=True)
class Result:
    """All runs of one cell."""

    runs: list[Record]

    @property
    def good(self) -> list[Record]:
        return [r for r in self.runs if "error" not in r and "left_out" not in r]

    @property
    def problem(self) -> str | None:
        """Why there are no figures."""
        if self.good:
            return None
        last = self.runs[-1] if self.runs else {}
        return last.get("error") or last.get("left_out") or "not measured"

    def values(self, key: str) -> list[float]:
        found = (r.get(key, r.get("counts", {}).get(key)) for r in self.good)
        return [value for value in found if value is not None]

    def median(self, key: str) -> float | None:
        values = self.values(key)
        return statistics.median(values) if values else None

    def spread(self, key: str = "s_per_token") -> float | None:
        """Half the range, as a share of the median; None for a single run."""
        values = self.values(key)
        middle = statistics.median(values) if len(values) > 1 else 0
        return (max(values) - min(values)) / middle / 2 if middle else None

    @property
    def exact(self) -> Record:
        """Figures that do not depend on time: the text's, and where no clock decides on trees all counts."""
        first = self.good[0] if self.good else {}
        found = {key: first[key] for key in EXACT if key in first}
        return found | (first.get("counts", {}) if first.get("steady") else {})


@dataclass(frozen=True, slots=True)
class Run:
    """A file of records."""

    settings: Record
    records: list[Record]
    ended: str | None = None
    seconds: float = 0.0
    _by_id: dict[str, Result] = field(default_factory=dict)

    def of(self, id: str) -> Result:
        if not self._by_id:
            for found in self.records:
                self._by_id.setdefault(found["id"], Result([])).runs.append(found)
        return self._by_id.get(id, Result([]))

    @property
    def ids(self) -> list[str]:
        return list(dict.fromkeys(r["id"] for r in self.records))


def load(path: Path) -> Run:
    """Raises SystemExit for a file that is none of these; a last line that was cut off is left out."""
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.endswith("}")]
    except (OSError, ValueError) as error:
        raise SystemExit(f"cannot read {path}: {error}; `make bench` writes it") from None
    return gather(lines)


def gather(lines: Iterable[Record]) -> Run:
    settings, records, ended, seconds = dict[str, Any](), list[Record](), None, 0.0
    for line in lines:
        if "run" in line:
            settings = line["run"]
        elif "ended" in line:
            ended, seconds = line["ended"], line["seconds"]
        elif "id" in line:
            records.append(line)
    return Run(settings, records, ended, seconds)


def latest() -> Path:
    """The last run here, whole or not; else the one that was published."""
    found = RESULTS / "report.jsonl"
    return found if found.exists() else MEASURED


def differing(run: Run) -> dict[str, str]:
    """Ids whose text is another than that of plain decoding, and where it parts; an empty one is the same.

    Texts of different lengths are compared as far as both go. Ids without a text are left out.
    """
    found = dict[str, str]()
    plain = _plain_texts(run)
    for record in run.records:
        key = _text_key(record)
        if "tokens" in record and key in plain:
            n = parted(plain[key], record["tokens"])
            found[record["id"]] = found.get(record["id"]) or ("" if n is None else f"from token {n} on")
    return found


def parted(a: list[int], b: list[int]) -> int | None:
    """The first place where two texts differ, as far as both go."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)


def _plain_texts(run: Run) -> dict[tuple[str, ...], list[int]]:
    """The longest text that plain decoding wrote of each kind."""
    longest = dict[tuple[str, ...], list[int]]()
    for kind in ("same", "off"):  # llama.cpp's own where there is one
        for record in run.records:
            key = _text_key(record)
            usable = record.get("kind") == kind and "tokens" in record and (kind == "same" or key not in longest)
            if usable and len(record["tokens"]) > len(longest.get(key, [])):
                longest[key] = record["tokens"]
    return longest


def _text_key(record: Record) -> tuple[str, ...]:
    return record.get("workload", ""), record.get("size", ""), record.get("sampling", "")
