"""Text files that users name."""

from pathlib import Path

from cadcpp.errors import CadError, ConfigError


def read_text(
    path: Path,
    kind: str = "",
    error: type[CadError] = ConfigError,
    otherwise: str = "convert it, or name another file",
) -> str:
    """What stands in a file. Raises ``error``, which names its ``kind``; ``otherwise`` helps if it is no text."""
    try:
        return path.read_text("utf-8")
    except OSError as reason:
        raise error(f"cannot read {kind}{path}: {reason.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise error(f"{kind}{path} is not UTF-8 text: {otherwise}") from None
