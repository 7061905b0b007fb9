"""`cadcpp models`: find, download, make and inspect model files."""
