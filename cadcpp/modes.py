"""The names of what may draft and how much, of how exact the text has to be, and of how weights are kept."""

from typing import Literal

Speculative = Literal["auto", "off", "draft", "ngram", "staged"]
Exact = Literal["auto", "strict", "off"]
Pin = Literal["auto", "locked", "anonymous", "off"]
Fallback = Literal["cost", "llmcad", "none"]
