"""The one room that speaks to llama.cpp: its handles, batches, caches and headers."""
