"""The members of an object, in the order in which they are declared."""

from dataclasses import dataclass, field

from cadcpp.schema.lists import listed
from cadcpp.schema.place import Place, SchemaError
from cadcpp.schema.rules import Rules


@dataclass(slots=True, kw_only=True)
class Members:
    """Declared members, then any number of others, with commas between them."""

    declared: list[tuple[str, bool]]  # a rule, and whether it has to be there
    extra: str | None  # of any other member
    least: int
    most: int | None
    rules: Rules
    _known: dict[tuple[int, int], str | None] = field(default_factory=dict)

    def rule(self, place: Place) -> str:
        """All of them, and blanks behind. Raises SchemaError for counts that a grammar cannot keep."""
        if self.most is not None and self.most < self._n_required:
            raise SchemaError(place.at("maxProperties"), "is less than what is required")
        if not self.declared and self.extra is not None:
            if self.least > 1:
                raise SchemaError(place.at("minProperties"), "counts different names, which a grammar cannot")
            return listed([], self.rules.add(self.extra), self.least, self.most) or "ws "
        if self._counts and self.extra is not None and self.least > len(self.declared) + 1:
            raise SchemaError(place.at("minProperties"), "counts different names, which a grammar cannot")
        body = self._after(0, 0)
        if body is None:
            raise SchemaError(place, "counts properties as no object can have them")
        return f"{body} ws "

    @property
    def _n_required(self) -> int:
        return sum(required for _, required in self.declared)

    @property
    def _counts(self) -> bool:
        """Whether it matters how many were written."""
        limited = self.most is not None and (self.most < len(self.declared) or self.extra is not None)
        return self.least > self._n_required or limited

    def _after(self, i: int, n: int) -> str | None:
        """What may follow when ``n`` were written of those before ``i``; None if it comes to nothing allowed."""
        key = i, n if self._counts else min(n, 1)
        if key not in self._known:
            self._known[key] = self._at_end(n) if i == len(self.declared) else self._from(i, n)
        return self._known[key]

    def _from(self, i: int, n: int) -> str | None:
        member, required = self.declared[i]
        taken = self._after(i + 1, n + 1) if self._has_room(n) else None
        left = None if required else self._after(i + 1, n)
        parts = [] if taken is None else [f"{_comma(n)}{member} {taken}"]
        parts += [] if left is None else [left]
        return self.rules.add(" | ".join(parts)) if parts else None

    def _at_end(self, n: int) -> str | None:
        enough = n >= self.least
        if self.extra is None or n < self.least - 1 or not self._has_room(n):  # names of two may be the same
            return '""' if enough else None
        member = self.rules.add(self.extra)
        times = f"{{0,{self.most - n - 1}}}" if self._counts and self.most is not None else "*"
        more = f'{_comma(n)}{member} ("," ws {member}){times}'
        return self.rules.add(f'"" | {more}' if enough else more)

    def _has_room(self, n: int) -> bool:
        return not self._counts or self.most is None or n < self.most


def _comma(n_before: int) -> str:
    return '"," ws ' if n_before else ""
