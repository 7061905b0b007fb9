"""The names of what may draft, of what decides how much, and of how exact the text has to be."""

from typing import Literal

Speculative = Literal["auto", "off", "draft", "ngram", "staged"]
Exact = Literal["auto", "strict", "off"]
Fallback = Literal["cost", "llmcad", "none"]
