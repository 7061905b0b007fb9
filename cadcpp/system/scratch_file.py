"""Files that are needed for a moment, wherever there is a place for them."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_FOLDERS = ("TMPDIR", "TEMP", "TMP")  # variables that name one
_COMMON = ("/tmp", "/var/tmp")


class ScratchFile:
    """An empty file that is gone when it is closed; ``folder`` None is in memory, which asks for no folder.

    Its ``name`` is unique, and part of whatever the system calls it.
    """

    def __init__(self, folder: Path | None) -> None:
        """Raises OSError."""
        self.name = f"cadcpp-{os.getpid()}-{secrets.token_hex(8)}"
        self._folder = folder
        if folder is not None:
            self.path = folder / self.name
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            return
        if not hasattr(os, "memfd_create"):
            raise OSError(errno.ENOSYS, "no such thing on this system")
        self.fd = os.memfd_create(self.name)
        self.path = Path(f"/proc/self/fd/{self.fd}")
        try:
            os.close(os.open(self.path, os.O_RDONLY))
        except OSError:
            os.close(self.fd)
            raise

    def close(self) -> None:
        if self._folder is not None:
            with suppress(OSError):
                os.unlink(self.path)
        os.close(self.fd)


def scratch_folders(near: Path | None = None) -> Iterator[Path | None]:
    """Where to try, in this order: memory, the temporary folders, ``near``, the user's own, shared memory."""
    named = [os.environ.get(name) for name in _FOLDERS]
    user = os.environ.get("XDG_RUNTIME_DIR")
    folders = [*named, *_COMMON, str(near) if near is not None else None, user, "/dev/shm"]
    yield None
    yield from dict.fromkeys(Path(folder) for folder in folders if folder)


def scratch_file(near: Path | None = None) -> ScratchFile:
    """One in the first place that takes it. Raises OSError, which names them all, if none does."""
    refused = []
    for folder in scratch_folders(near):
        try:
            return ScratchFile(folder)
        except OSError as error:
            refused.append(f"{place_name(folder)}: {error.strerror}")
    raise OSError(errno.EROFS, f"no place for a temporary file ({'; '.join(refused)})")


def place_name(folder: Path | None) -> str:
    """What a place is called."""
    return "memory" if folder is None else str(folder)
