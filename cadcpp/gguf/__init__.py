"""Model files as their headers tell of them; no weights are read."""
