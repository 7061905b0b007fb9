"""cadcpp on emulated ARM processors."""
