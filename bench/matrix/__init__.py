"""The cells of the benchmark: workloads, systems, places."""
