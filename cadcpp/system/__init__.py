"""What the operating system offers: mappings, memory limits, disks."""
