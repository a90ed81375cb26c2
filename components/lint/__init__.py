"""Reports the traps of compiled Kubeflow pipelines and of KServe and Kubernetes manifests, before anything runs.

The rules are small pure functions over what was read, in the modules called …_rules. To add one, write a function there; its name is
the rule's id, and its docstring what the user reads (see `registry.rule`).
"""

from components.lint.linter import Finding, Report, all_rules, lint
from components.lint.registry import Level, Rule

__all__ = ["Finding", "Level", "Report", "Rule", "all_rules", "lint"]
