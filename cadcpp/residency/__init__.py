"""Which of the verifier's bytes are in memory, planned and paged."""
