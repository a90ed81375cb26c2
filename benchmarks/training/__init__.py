"""Training beside a reference loop, and the sets that both learn."""
