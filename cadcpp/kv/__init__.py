"""The KV cache of one context, and its copy on disk."""
