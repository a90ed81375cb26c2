"""How often each rule of the gate passes, is insufficient, or fails when the truth is known; writes the table of docs/gate.md.

Everything is drawn anew with fixed seeds, so the same code gives the same table; tests/gate/test_simulation.py compares the two.
"""

import sys
from pathlib import Path
from typing import Any

from components.bundle.environment import environment_names, load_environment
from components.bundle.policy import bound_text
from components.gate.scenarios import TRUTHS, Setting, outcome_shares, sampled_rules

DOCS = Path(__file__).parent.parent / "docs" / "gate.md"
BEGIN, END = "<!-- simulated: begin -->", "<!-- simulated: end -->"
PICTURES = (100, 360, 1000, 10_000)
RUNS = 1000
SETTING = Setting(classes=10, discordance=0.05)
MANY, RUNS_OF_MANY_CLASSES = Setting(classes=100, slices=20), 200
FLOORS = {"site": 0.9}
"""An own column's floor; no environment sets one, since columns are the data's."""
PARTS = {"minimum_class_recall": "classes", "slice_floors": "slices"}
"""The rules that judge parts of the test split, which are simulated with many of them too."""


def rows() -> list[tuple[str, Any, Setting]]:
    """Every rule with each bound that an environment gives it, and those that judge parts once more with many of them."""
    listed: list[tuple[str, Any]] = [("require_superiority", True), ("slice_floors", FLOORS)]
    for name in environment_names():
        listed += [row for row in sampled_rules(load_environment(name).policy).items() if row not in listed]
    many = [(rule, bound, MANY) for rule, bound in listed if rule in PARTS]
    return sorted([*((*row, SETTING) for row in listed), *many], key=lambda row: (row[0], str(row[1]), row[2].classes))


def cells(rule: str, bound: Any, setting: Setting, n: int) -> list[str]:
    """For each truth the shares of pass, insufficient and fail, in per cent."""
    shown, runs = [], RUNS_OF_MANY_CLASSES if setting is MANY and PARTS[rule] == "classes" else RUNS
    for truth in TRUTHS:
        shares = outcome_shares(rule, bound, truth, n, setting, runs)
        shown.append(" / ".join(f"{100 * shares[outcome]:.1f}" for outcome in ("pass", "insufficient", "fail")))
    return shown


def table(rule: str, bound: Any, setting: Setting) -> list[str]:
    """The lines of one rule, one for each number of pictures."""
    name = f"`{rule}` {bound_text(bound)}".rstrip()
    if rule == "slice_floors" or setting is MANY:
        name += f", {getattr(setting, PARTS[rule])} {PARTS[rule]}"
    return [f"| {name} | {n:,} | {' | '.join(cells(rule, bound, setting, n))} |" for n in PICTURES]


def page() -> str:
    """The whole table as Markdown."""
    head = ["| rule | pictures | good | at the bound | bad |", "|---|--:|--:|--:|--:|"]
    return "\n".join(head + [line for row in rows() for line in table(*row)])


def main() -> None:
    """Write the table into docs/gate.md."""
    written = page()
    before, rest = DOCS.read_text("utf-8").split(BEGIN)
    DOCS.write_text(f"{before}{BEGIN}\n\n{written}\n\n{END}{rest.split(END)[1]}", "utf-8")
    print(f"wrote the table of {DOCS}", file=sys.stderr)


if __name__ == "__main__":
    main()
