"""Where chats are kept between sessions: the user's state directory, as XDG has it."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cadcpp.system.user_dirs import state_dir

HOMELESS = "there is no home directory: set HOME or XDG_STATE_HOME"


@dataclass(frozen=True, slots=True)
class Places:
    """Where one user's chats are; ``base`` is None for a user without a home, whose chats are not kept."""

    base: Path | None

    @staticmethod
    def found() -> "Places":
        return Places(state_dir())

    @property
    def history(self) -> Path | None:
        """What was typed."""
        return self.base / "history" if self.base else None

    def new_chat(self) -> Path | None:
        """A file for the transcript of this process. Every conversation has its own, so that no two write to one."""
        name = f"{datetime.now():%Y%m%d-%H%M%S-%f}-{os.getpid()}.jsonl"
        return self.base / "chats" / name if self.base else None

    def last_chat(self) -> Path | None:
        """The transcript that was written last."""
        found = (self.base / "chats").glob("*.jsonl") if self.base else ()
        return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def cache_of(chat: Path) -> Path:
    """Where the KV cache of a chat is kept, if it is."""
    return chat.with_suffix(".cache")
