"""How tokens are drawn: noise that draft and verifier share, and what is worth drafting in its light; numbers only."""
