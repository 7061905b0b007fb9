"""Items with commas between them."""

from cadcpp.schema.rules import LONGEST, Rules


def listed(first: list[str], item: str, least: int, most: int | None) -> str:
    """Items with commas between and blanks behind: those of ``first``, then ``item`` again and again."""
    n = len(first)
    more = None if most is None else min(most, LONGEST) - n
    if more is not None and more <= 0:
        first, more = first[: n + more], 0
    tail = f'("," ws {item}){{{max(least - max(n, 1), 0)},{"" if more is None else max(more - (not n), 0)}}}'
    if not n:
        if more == 0:
            return ""
        return f"{item} {tail} ws " if least else f"({item} {tail} ws)? "
    rest = "" if more == 0 else f" {tail}"
    n = len(first)
    body = rest
    for i in reversed(range(n)):
        comma = '"," ws ' if i else ""
        body = f"{comma}{first[i]}{f' {body}' if body else ''}"
        if i >= least and i:
            body = f"({body})?"
    return f"{body} ws " if least or not first else f"({body} ws)? "


def subset(rules: Rules, parts: list[str], least: int, most: int | None) -> str:
    """Some of ``parts`` in their order, separated, and blanks behind them."""
    known: dict[tuple[int, int], str | None] = {}

    def after(i: int, n: int) -> str | None:
        """What may follow when ``n`` were taken of those before ``i``; None if it comes to too few."""
        if (i, n) not in known:
            comma = '"," ws ' if n else ""
            found = ['""'] if n >= least else []
            for j in range(i, len(parts)) if most is None or n < most else ():
                rest = after(j + 1, n + 1)
                found += [] if rest is None else [f"{comma}{parts[j]} {rest}"]
            known[i, n] = rules.add(" | ".join(found)) if found else None
        return known[i, n]

    return f"{after(0, 0)} ws "
