"""Runs behind limits, and records of them."""
