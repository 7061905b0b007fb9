"""Which of the chunks that are to stay in memory do so for now: numbers in, sets of chunks out."""

from collections.abc import Sequence

from cadcpp.residency.layout import Extent


class PinnedSet:
    """The chunks that are to stay, as far as there is memory for them.

    As many bytes as others have ``taken`` are streamed for now. The rest is resident, or missing until it is read.
    """

    def __init__(self, chunks: Sequence[Extent]) -> None:
        self._chunks = chunks
        self.n_bytes = sum(map(len, chunks))
        self.taken = 0
        self.streamed = set[Extent]()
        self._resident = set[Extent]()
        self._locked = set[Extent]()
        # Bytes of each, counted as they change: they are asked for several times a round, of thousands of chunks.
        self.streamed_bytes = self.resident_bytes = 0
        self.locked_bytes = 0  # of the resident ones, what the kernel must not take

    @property
    def missing(self) -> set[Extent]:
        """What is to be read, and to stay."""
        return set(self._chunks) - self.streamed - self._resident

    def add(self, chunk: Extent, locked: bool) -> None:
        """A chunk is resident now, if it was not before."""
        if chunk not in self._resident:
            self._resident.add(chunk)
            self.resident_bytes += len(chunk)
        if locked and chunk not in self._locked:
            self._locked.add(chunk)
            self.locked_bytes += len(chunk)

    def rebalance(self) -> set[Extent]:
        """Stream as many chunks as others have taken, and no others. Gives those that must be dropped."""
        self.streamed = _spread(self._chunks, self.taken)
        dropped = self._resident & self.streamed
        self._resident -= dropped
        self._locked -= dropped
        self.streamed_bytes, self.resident_bytes, self.locked_bytes = (
            sum(map(len, chunks)) for chunks in (self.streamed, self._resident, self._locked)
        )
        return dropped

    def window_room(self, window_bytes: int, least: int) -> int:
        """Bytes for a window of ``window_bytes``: fewer where others have taken more than there is."""
        return max(min(window_bytes, window_bytes + self.n_bytes - self.taken), least)


def _spread(chunks: Sequence[Extent], n_bytes: int) -> set[Extent]:
    """Chunks of at least ``n_bytes``, from all layers alike."""
    total = sum(map(len, chunks))
    wanted = min(n_bytes, total)
    chosen, passed, taken = set[Extent](), 0, 0
    for chunk in chunks:
        passed += len(chunk)
        if taken * total < wanted * passed:  # in whole numbers: a rounded share would take a chunk too many
            chosen.add(chunk)
            taken += len(chunk)
    return chosen
