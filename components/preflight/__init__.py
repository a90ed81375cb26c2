"""Refuses a run that is known to fail, before any work."""
