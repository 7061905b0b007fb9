"""Names of what may draft and how much, how tokens are drawn, weights and values kept, and how exact a text is."""

from typing import Literal

Speculative = Literal["auto", "off", "draft", "ngram", "staged"]
Draws = Literal["coupled", "llama"]
Exact = Literal["auto", "strict", "off"]
Pin = Literal["auto", "locked", "anonymous", "off"]
CacheValues = Literal["auto", "q8_0", "f16"]
Fallback = Literal["cost", "llmcad", "none"]
