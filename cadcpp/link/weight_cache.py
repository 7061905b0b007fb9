"""What a worker keeps on disk of weights that were sent to it, and whether that is still what was sent."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_TENSOR = 296  # bytes that describe it, at the start of what sends it
_DATA = _TENSOR + 1 + 8  # then a flag and an offset stand before its data
_HASH = slice(_TENSOR + 8, _TENSOR + 16)  # of its data, in what asks whether it is there
HASH_BYTES = _TENSOR + 16
_PIECE = 4 << 20


class Checksum:
    """Of bytes that pass one after the other, without the first ``skip``."""

    def __init__(self, skip: int = 0) -> None:
        self._skip, self._n_bytes, self._crc = skip, 0, 0

    @classmethod
    def of_tensor(cls) -> "Checksum":
        """Of the data in a command that sends a tensor."""
        return cls(_DATA)

    def add(self, piece: bytes | memoryview) -> None:
        data = piece[self._skip :]
        self._skip = max(self._skip - len(piece), 0)
        self._n_bytes, self._crc = self._n_bytes + len(data), zlib.crc32(data, self._crc)

    def __str__(self) -> str:
        return f"{self._n_bytes} {self._crc:08x}\n"


class WeightCache:
    """A folder of files that llama.cpp's server writes, each named by a hash of what it was sent.

    The server uses whatever it finds under a name: half a file after a power cut, or one that a card has damaged, would
    change the text and nobody would know. So each has a checksum beside it, and counts only where the two agree.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def name(payload: bytes) -> str:
        """Of the file that a client asks for."""
        return f"{int.from_bytes(payload[_HASH], 'little'):016x}"

    def has(self, name: str, beat: Callable[[], None]) -> bool:
        """Whether a file is there and is what was sent; ``beat`` is called while it is read."""
        checksum = Checksum()
        for piece in _pieces(self._folder / name):
            checksum.add(piece)
            beat()
        return _text(self._beside(name)) == str(checksum)

    def keep(self, name: str, checksum: Checksum) -> None:
        """The server has written what was sent, or will have."""
        with suppress(OSError):
            self._beside(name).write_text(str(checksum), "ascii")

    def _beside(self, name: str) -> Path:
        return self._folder / f"{name}.crc32"


def _pieces(file: Path) -> Iterator[bytes]:
    """As far as it can be read."""
    with suppress(OSError), file.open("rb") as stream:
        while piece := stream.read(_PIECE):
            yield piece


def _text(file: Path) -> str:
    with suppress(OSError):
        return file.read_text("ascii", "replace")
    return ""
