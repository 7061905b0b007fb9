"""`python -m cadcpp` is `cadcpp`."""

from cadcpp.cli import main

main()
