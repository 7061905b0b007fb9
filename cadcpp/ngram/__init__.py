"""What n-grams know about the next token: numbers only, no model inside."""
