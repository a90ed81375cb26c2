"""Refuses, before any work, every run of which it is known that it must fail."""
