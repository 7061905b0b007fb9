"""From token bytes to text: whole characters, and nothing of a stop string."""

import codecs
from collections.abc import Sequence


class Detokenizer:
    """Decodes bytes as they come; holds back half a character, and what may become a stop string."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = [text for text in stop if text]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def feed(self, data: bytes) -> str:
        """Text that is certain after ``data``; sets ``stopped`` and ends before a stop string."""
        return self._release(self._decoder.decode(data))

    def finish(self) -> str:
        """What was held back when the text ends here."""
        text = self._release(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return text if self.stopped else text + held

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        # Of several the one that is complete first, as if the text came letter by letter.
        found = [(at + len(stop), at) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        self.stopped = bool(found)
        end = min(found)[1] if found else len(self._held) - self._partial()
        text, self._held = self._held[:end], "" if found else self._held[end:]
        return text

    def _partial(self) -> int:
        """Length of the longest tail that begins a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for n in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-n:]) for stop in self._stop):
                return n
        return 0
