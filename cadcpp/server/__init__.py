"""HTTP: OpenAI's API, and what clients of llama-server and ollama expect, on cadcpp's `Llama`."""

import cadcpp.native.lib  # noqa: F401  first: it sets what has to be set before llama.cpp loads
