"""Where chats are kept between sessions: the user's state directory, as XDG has it."""

import os
from datetime import datetime
from pathlib import Path


def state_dir() -> Path:
    """``$XDG_STATE_HOME/cadcpp``, by default under ``~/.local/state``."""
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".local" / "state") / "cadcpp"


def history() -> Path:
    """What was typed."""
    return state_dir() / "history"


def new_chat() -> Path:
    """A file for the transcript of this process. Every conversation has its own, so that no two write to one."""
    return _chats() / f"{datetime.now():%Y%m%d-%H%M%S-%f}-{os.getpid()}.jsonl"


def last_chat() -> Path | None:
    """The transcript that was written last."""
    return max(_chats().glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns, default=None)


def cache_of(chat: Path) -> Path:
    """Where the KV cache of a chat is kept, if it is."""
    return chat.with_suffix(".cache")


def _chats() -> Path:
    return state_dir() / "chats"
