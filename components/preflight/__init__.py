"""Everything that can be known to fail is told before any work is done."""
