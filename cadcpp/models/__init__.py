"""Making, fetching and comparing model files."""
