"""The verify pass and the accept walk."""
