"""The footer of a reply: what it cost, in a line and in full."""

from typing import Any

from cadcpp.util.byte_size import format_size


def footer(record: dict[str, Any], resident: float | None) -> str:
    """One line about a reply: speed, tokens a pass, bytes read per token, share of the weights in memory."""
    stats = record["stats"]
    parts = [
        f"{record['completion_tokens']} tokens",
        f"{record['tokens_per_second']:.2f}/s",
        f"{stats['tokens_per_pass']:.2f} a pass",
        f"{format_size(stats['read_bytes_per_token'])} read a token",
    ]
    return f"[{', '.join(parts if resident is None else [*parts, f'{resident:.0%} resident'])}]"


def table(record: dict[str, Any]) -> str:
    """All figures of a reply, a line each."""
    values = {name: value for name, value in record.items() if name not in ("text", "tokens", "stats")}
    return "\n".join(
        f"{name:24} {round(value, 3) if isinstance(value, float) else value}"
        for name, value in (values | record["stats"]).items()
        if value != ""
    )
