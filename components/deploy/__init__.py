"""Deploying a version that the gate let through: one module per target, chosen in step.py."""
