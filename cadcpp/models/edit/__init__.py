"""Model files rewritten: types, widths, layers."""
