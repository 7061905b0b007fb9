"""How much to draft: numbers in, decisions out."""
