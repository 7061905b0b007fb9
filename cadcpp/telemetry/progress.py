"""How much of a text is evaluated."""

from collections.abc import Callable

Progress = Callable[[int, int], None]  # tokens of a text that are evaluated, of how many


def within(progress: Progress | None, start: int, n: int, total: int) -> Callable[[float], None] | None:
    """Tells a share of a pass over ``n`` tokens as tokens done, of ``total``."""
    return None if progress is None else lambda share: progress(start + int(share * n), total)
