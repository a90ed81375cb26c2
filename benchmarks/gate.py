"""How often each rule of the gate passes, is insufficient, or fails when the truth is known; writes the table of docs/gate.md.

Everything is drawn anew with fixed seeds, so the same code gives the same table; tests/gate/test_simulation.py compares the two.
"""

import sys
from pathlib import Path

from components.bundle.environment import environment_names, load_environment
from components.gate.scenarios import TRUTHS, Setting, outcome_shares, sampled_rules

DOCS = Path(__file__).parent.parent / "docs" / "gate.md"
BEGIN, END = "<!-- simulated: begin -->", "<!-- simulated: end -->"
PICTURES = (100, 360, 1000, 10_000)
RUNS = 1000
SETTING = Setting(classes=10, discordance=0.05)
MANY, MANY_RUNS = Setting(classes=100), 200


def rows() -> list[tuple[str, object, Setting]]:
    """Every rule with each bound that an environment gives it, and recall once more with many classes."""
    found: dict[tuple[str, object], Setting] = {}
    for name in environment_names():
        for rule, bound in sampled_rules(load_environment(name).policy).items():
            found[rule, bound] = SETTING
    found["require_superiority", True] = SETTING
    listed = [(rule, bound, setting) for (rule, bound), setting in found.items()]
    many = [(rule, bound, MANY) for rule, bound, _ in listed if rule == "minimum_class_recall"]
    return sorted([*listed, *many], key=lambda row: (row[0], str(row[1]), row[2].classes))


def cells(rule: str, bound: object, setting: Setting, n: int) -> list[str]:
    """For each truth the shares of pass, insufficient and fail, in per cent."""
    shown = []
    for truth in TRUTHS:
        shares = outcome_shares(rule, bound, truth, n, setting, MANY_RUNS if setting is MANY else RUNS)
        shown.append(" / ".join(f"{100 * shares[outcome]:.1f}" for outcome in ("pass", "insufficient", "fail")))
    return shown


def table(rule: str, bound: object, setting: Setting) -> list[str]:
    """The lines of one rule, one for each number of pictures."""
    name = f"`{rule}`" + ("" if isinstance(bound, bool) else f" {bound}") + (f", {setting.classes} classes" if setting is MANY else "")
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
