"""What the operating system offers: mappings, memory limits, cores, disks, folders."""
