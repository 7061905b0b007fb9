"""`cadcpp models`: make, fetch and look at model files."""
