"""Runs the checks over what was seen, and prints what they say."""

from collections.abc import Iterable
from typing import Any

from components.doctor import admission_checks, capacity_checks, cluster_checks, namespace_checks, store_checks
from components.doctor.registry import REGISTERED, Check, Result, State, run
from components.doctor.seen import Seen

_MODULES = {
    cluster_checks.__name__: "The cluster",
    namespace_checks.__name__: "The namespaces",
    admission_checks.__name__: "What a deployer could also do",
    capacity_checks.__name__: "Room",
    store_checks.__name__: "The store",
}
_MARKS = {State.OK: "✓", State.WARNING: "!", State.BROKEN: "✗", State.NOT_SEEN: "?"}


def all_checks() -> list[Check]:
    """Every check: the cluster's first, then the namespaces', then the store's."""
    order = list(_MODULES)
    return sorted(REGISTERED.values(), key=lambda it: order.index(it.run.__module__))


def examine(seen: Seen, part: str = "") -> list[Result]:
    """Run all checks, or those of one part."""
    return [result for it in all_checks() if not part or part in it.parts for result in run(it, seen)]


def as_text(results: Iterable[Result]) -> str:
    """One line per result; below those that are not well, what will break and what mends it."""
    lines = []
    counts = dict.fromkeys(State, 0)
    for it in results:
        counts[it.state] += 1
        lines.append(f"{_MARKS[it.state]} {it.check}: {it.saw}")
        if it.breaks:
            lines += [f"    breaks {it.breaks}", f"    mend\n{it.mend}" if "\n" in it.mend else f"    mend  {it.mend}"]
    words = {State.OK: "well", State.WARNING: "warnings", State.BROKEN: "will break", State.NOT_SEEN: "not seen"}
    lines.append(", ".join(f"{count} {words[state]}" for state, count in counts.items() if count))
    return "\n".join(lines)


def as_json(results: Iterable[Result]) -> list[dict[str, Any]]:
    """The results, field by field."""
    return [{"check": it.check, "state": str(it.state), "saw": it.saw, "breaks": it.breaks, "mend": it.mend} for it in results]


def checks_page() -> str:
    """The part of docs/rules.md about the checks."""
    parts = ["# Checks of `penstock doctor`", "What each looks at. How to use them, and add one: [doctor.md](doctor.md)."]
    for module, title in _MODULES.items():
        parts.append(f"## {title}")
        parts += [f"- **{it.id}**: {it.title}" for it in all_checks() if it.run.__module__ == module]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ") + "\n"
