"""Which of llama.cpp's kernels a verifier is computed with, and in what numbers of rows."""

from dataclasses import dataclass

from cadcpp.residency.states import States
from cadcpp.tree.granularity import Granularity


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelMode:
    """One way to compute, and whether it gives a row the same logits whatever else is in its pass."""

    repacked: bool = False  # weights are rearranged for the fastest kernels, in anonymous memory
    f16_values: bool = False  # the KV cache has its values in f16, its keys in q8_0 as ever
    routers_by_row: bool = False  # a mixture's routers are computed row by row, as llama.cpp does of a single row
    granularity: Granularity = Granularity()
    exact: bool = True
    reason: str = ""  # why it is not exact
    untried: str = ""  # what else its exactness rests on, which was not tried on this machine
    alone_because: str = ""  # why rows of text are computed one at a time, which is exact with any kernels

    @property
    def drafts(self) -> bool:
        """Whether a pass may have rows of drafts."""
        return not self.alone_because

    @property
    def name(self) -> str:
        """In words, such as "repacked, rows in multiples of 4"."""
        kernels = "repacked" if self.repacked else "as they come"
        kernels += ", cached values in f16" * self.f16_values + ", routers row by row" * self.routers_by_row
        if not self.drafts:
            return f"{kernels}, one row at a time: {self.alone_because}"
        rows = self.granularity
        if rows.large > rows.multiple:
            return f"{kernels}, rows in multiples of {rows.multiple}, of {rows.large} beyond 16"
        if rows.multiple > 1:
            return f"{kernels}, rows in multiples of {rows.multiple}"
        return f"{kernels}, {rows.least} rows at least" if rows.least > 1 else kernels

    @property
    def promise(self) -> str:
        """Whether the text is kept, in words."""
        if not self.exact:
            return f"the text may differ from plain decoding's: {self.reason}"
        beside = f", as far as was tried: {self.untried} were not" if self.untried else ""
        return f"the text is that of plain decoding{beside}"

    @property
    def verdict(self) -> str:
        """The promise, and the name of what keeps it."""
        return f"{self.promise} ({self.name})" if self.exact else self.promise


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelModes:
    """The mode for weights that all stay in memory, and that for weights which are mapped and streamed."""

    kept: KernelMode = KernelMode()
    streamed: KernelMode = KernelMode()
    snapshots: bool = False  # whether llama.cpp can keep recurrent states before the last tokens
    states: States | None = None  # which it keeps, where workers have made room for them; else the plan decides
