"""Bringing a version to serve: by the gate, by a person who names it, or back to an earlier one; targets are local.py and kserve/."""
