"""Deploying a version that the gate let through: one module a target, chosen in `targets.py`."""
