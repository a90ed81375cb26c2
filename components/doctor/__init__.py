"""Examines a cluster before something runs on it: what is there, what that will break, and the command that mends it.

`gather` reads everything once and changes nothing; the modules called …_checks hold pure functions over what was
read. To add one, write a function there (see `registry.check`).
"""

from components.doctor.registry import Result, State
from components.doctor.report import examine

__all__ = ["Result", "State", "examine"]
