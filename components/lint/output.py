"""What was found, as text for people, JSON and SARIF for programs; and the page that describes the rules."""

from dataclasses import asdict
from typing import Any

from components.lint.linter import MODULES, Finding, Report, all_rules
from components.lint.registry import Level, Rule

_ABOUT = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"


def as_text(report: Report) -> str:
    """A line for each finding with its path; why and fix where the rule is met first; and a last line that counts."""
    lines = []
    explained: set[str] = set()
    for it in report.findings:
        lines.append(f"{it.file}:{it.line}:{it.column}: {it.rule.level}: {it.seen} [{it.rule.id}]")
        lines.append(f"    at   {it.path}")
        if it.rule.id not in explained:
            explained.add(it.rule.id)
            lines += [f"    why  {it.rule.why}", f"    fix  {it.rule.fix}{' (--fix does it)' if it.fixable else ''}"]
    for damaged in report.unreadable:
        where = f"{damaged.file}:{damaged.line}:{damaged.column}"
        if damaged.template:
            lines.append(f"{where}: skipped: a template; check what it gives: helm template … | penstock lint -")
        else:
            lines.append(f"{where}: error: cannot be read as YAML ({damaged.reason})")
    counts = [_count(sum(it.rule.level == level for it in report.findings), level) for level in Level]
    found = ", ".join(it for it in counts if not it.startswith("0 ")) or "nothing found"
    lines.append(f"{found} in {_count(report.pipelines, 'pipeline')} and {_count(report.manifests, 'manifest')}")
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def as_json(report: Report) -> dict[str, Any]:
    """Findings, what could not be read, and counts."""
    return {
        "findings": [
            {
                "rule": it.rule.id,
                "level": str(it.rule.level),
                "file": it.file,
                "line": it.line,
                "column": it.column,
                "path": it.path,
                "seen": it.seen,
                "why": it.rule.why,
                "fix": it.rule.fix,
                "fixable": it.fixable,
            }
            for it in report.findings
        ],
        "unreadable": [asdict(it) for it in report.unreadable],
        "pipelines": report.pipelines,
        "manifests": report.manifests,
    }


def as_sarif(report: Report) -> dict[str, Any]:
    """A SARIF 2.1.0 log, as code hosts read it: https://docs.oasis-open.org/sarif/sarif/v2.1.0/."""
    rules = all_rules()
    damaged = [it for it in report.unreadable if not it.template]
    return {
        "$schema": _ABOUT,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "penstock lint", "rules": [_sarif_rule(it) for it in rules.values()]}},
                "invocations": [
                    {
                        "executionSuccessful": not damaged,
                        "toolExecutionNotifications": [
                            {
                                "level": "error",
                                "message": {"text": f"cannot be read as YAML ({it.reason})"},
                                "locations": [_sarif_location(it.file, it.line, it.column)],
                            }
                            for it in damaged
                        ],
                    }
                ],
                "results": [_sarif_result(it, list(rules).index(it.rule.id)) for it in report.findings],
                "columnKind": "unicodeCodePoints",
            }
        ],
    }


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title + "."},
        "fullDescription": {"text": rule.why},
        "help": {"text": rule.fix},
        "defaultConfiguration": {"level": str(rule.level)},
    }


def _sarif_result(finding: Finding, index: int) -> dict[str, Any]:
    location = _sarif_location(finding.file, finding.line, finding.column)
    location["logicalLocations"] = [{"fullyQualifiedName": finding.path}]
    return {
        "ruleId": finding.rule.id,
        "ruleIndex": index,
        "level": str(finding.rule.level),
        "message": {"text": f"{finding.seen}. {finding.rule.why} Fix: {finding.rule.fix}"},
        "locations": [location],
    }


def _sarif_location(file: str, line: int, column: int) -> dict[str, Any]:
    uri = file.replace("\\", "/").replace("%", "%25").replace(" ", "%20").replace("#", "%23").removeprefix("./")
    return {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": line, "startColumn": column}}}


def rules_as_text() -> str:
    """One line for each rule: id, level and title."""
    rules = all_rules().values()
    width = max(len(it.id) for it in rules)
    return "\n".join(f"{it.id:{width}}  {it.level:7}  {it.title}" for it in rules)


def rules_as_json() -> list[dict[str, str]]:
    """Every rule with all that is said of it."""
    return [{"id": it.id, "level": str(it.level), "title": it.title, "why": it.why, "fix": it.fix} for it in all_rules().values()]


def rules_page() -> str:
    """docs/rules.md."""
    parts = [
        "# Rules of `penstock lint`",
        "This page is made from the rules by `penstock lint --rules --format markdown`. How to use them, and add one: [lint.md](lint.md).",
        "An **error** fails, or does something else than was asked. A **warning** may. A **note** is advice, and leaves the exit code 0.",
    ]
    for module, title in MODULES.items():
        parts.append(f"## {title}")
        for it in all_rules().values():
            if it.check.__module__ == module:
                parts += [f"### {it.id}", f"*{it.level}.* {it.title}.", it.why, f"**Fix:** {it.fix}"]
    return "\n\n".join(parts) + "\n"
