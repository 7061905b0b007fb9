"""What one call of `Llama` reads and writes."""

from dataclasses import dataclass, field

from cadcpp.runtime.token_writer import TokenWriter
from cadcpp.telemetry.stats import Stats


@dataclass(slots=True)
class Reply:
    """One text. Several may be half read, as streams are, and each goes on from its own."""

    prompt: list[int] = field(default_factory=list)
    n_wanted: int = 0  # most tokens that are taken of it, so that no tree is larger than what is left; 0: nobody knows
    before: list[int] = field(default_factory=list)  # tokens before the prompt, of a text that was not reset
    drawn: list[int] = field(default_factory=list)  # may be more than were shown
    stats: Stats = field(default_factory=Stats)
    writer: TokenWriter | None = None  # until it ends

    @property
    def counted(self) -> list[int]:
        """Tokens that count as text: as upstream has it, the last one drawn does as soon as the next is wanted."""
        return [*self.before, *self.prompt, *self.drawn[:-1]]
