"""Runs within limits, and records of them."""
