"""llama-cpp-python's own OpenAI-compatible server, on cadcpp's `Llama`."""

import cadcpp.native.lib  # noqa: F401  first: it sets what has to be set before llama.cpp loads
