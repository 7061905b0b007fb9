"""What cadcpp is compared with."""
