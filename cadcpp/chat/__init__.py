"""Conversations, their template and their file."""
