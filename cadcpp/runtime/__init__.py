"""Sessions: rounds of draft, verify and accept, and text out of them."""
