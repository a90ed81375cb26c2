"""Candidate -> immutable model version in the registry."""
