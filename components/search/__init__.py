"""Searches for better training settings: which trials run, which of them go on, and what won."""
