"""The names of what may draft, and of what decides how much."""

from typing import Literal

Speculative = Literal["auto", "off", "draft", "ngram", "staged"]
Fallback = Literal["cost", "llmcad", "none"]
