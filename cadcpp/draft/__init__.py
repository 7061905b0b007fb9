"""Drafters: what might come next, as a token tree."""
