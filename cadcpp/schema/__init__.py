"""JSON schemas as grammars: what one cannot say is refused, with the place in the schema."""
