"""The names of what may draft and how much, of ways to draw tokens and to keep weights, and of how exact a text is."""

from typing import Literal

Speculative = Literal["auto", "off", "draft", "ngram", "staged"]
Draws = Literal["coupled", "llama"]
Exact = Literal["auto", "strict", "off"]
Pin = Literal["auto", "locked", "anonymous", "off"]
Fallback = Literal["cost", "llmcad", "none"]
