"""Benchmarks that are run by hand: one folder each."""
