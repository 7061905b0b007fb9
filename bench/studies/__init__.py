"""Questions measured one at a time."""
