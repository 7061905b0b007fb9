"""What happened: counters, traces and progress."""
