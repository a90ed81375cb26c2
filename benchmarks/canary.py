"""How often a live canary undoes a challenger whose truth is known, and after how many requests; writes the table of docs/rollout.md.

Everything is drawn anew with fixed seeds, so the same code gives the same table; tests/deploy/test_canary_simulation.py compares the two.
Each row simulates at least 100,000 requests to challengers, in canaries of two steps.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.deploy.kserve.live import Bounds, Counts, Pairs, compare_counts, sizes_of_looks

DOCS = Path(__file__).parent.parent / "docs" / "rollout.md"
BEGIN, END = "<!-- simulated: begin -->", "<!-- simulated: end -->"
LEAST, CANARIES, STEPS = 400, 1000, (10, 50)
AGREEMENT = 0.9
SECONDS = (0.3, 0.4, 0.2, 0.08, 0.02)
"""Shares of the answers in the buckets of a latency histogram."""
CONFIDENCE = (0.01, 0.02, 0.05, 0.12, 0.3, 0.5)


@dataclass(frozen=True)
class Truth:
    """What one kind of challenger is like beside its champion: shares of failures, and of answers moved into the worst buckets."""

    name: str
    errors: tuple[float, float] = (0.005, 0.005)
    """Champion's and challenger's."""
    slow: float = 0.0
    unsure: float = 0.0
    agree: float = 0.97
    least: int = LEAST


TRUTHS = (
    Truth("equal"),
    Truth("equal, both fail at 5%", errors=(0.05, 0.05)),
    Truth("equal, agreement just as asked for", agree=AGREEMENT),
    Truth("equal, 2,000 requests at each step", least=2000),
    Truth("fails at 2% instead of 0.5%", errors=(0.005, 0.02)),
    Truth("fails at 5% instead of 0.5%", errors=(0.005, 0.05)),
    Truth("fails at 2% instead of 0.5%, 2,000 requests", errors=(0.005, 0.02), least=2000),
    Truth("always fails", errors=(0.005, 1.0)),
    Truth("10% of answers become slow", slow=0.1),
    Truth("20% of answers become slow", slow=0.2),
    Truth("20% of answers become unsure", unsure=0.2),
    Truth("agrees on 80%, 90% asked for", agree=0.8),
)


def moved(shares: tuple[float, ...], worst: int, part: float) -> np.ndarray:
    """Move a part of the answers into one bucket."""
    given = np.array(shares) * (1 - part)
    given[worst] += part
    return given


def simulate(truth: Truth, canaries: int = CANARIES, seed: int = 0) -> tuple[float, float]:
    """Return the share of canaries that were undone, and the mean number of the challenger's requests until then (NaN for none)."""
    rng = np.random.default_rng(seed)
    looks = sizes_of_looks(truth.least)
    bounds = Bounds(truth.least, len(looks) * len(STEPS), agreement=AGREEMENT)
    ends = [end for _ in range(canaries) if (end := _undone_after(truth, bounds, looks, rng))]
    return len(ends) / canaries, float(np.mean(ends)) if ends else float("nan")


def _undone_after(truth: Truth, bounds: Bounds, looks: list[int], rng: np.random.Generator) -> int:
    """Run one canary; returns after how many of its requests the challenger was undone, 0 when it passed."""
    spent = 0
    for percent in STEPS:
        alike, before, verdict = 0, 0, ""
        totals = [np.zeros(1 + len(SECONDS) + len(CONFIDENCE), int) for _ in range(2)]
        for look in looks:
            fresh = look - before
            sizes = (max(fresh, round(fresh * (100 - percent) / percent)), fresh)
            for which, (total, n) in enumerate(zip(totals, sizes, strict=True)):
                total[0] += rng.binomial(n, truth.errors[which])
                total[1 : 1 + len(SECONDS)] += rng.multinomial(n, moved(SECONDS, -1, truth.slow * which))
                total[1 + len(SECONDS) :] += rng.multinomial(n, moved(CONFIDENCE, 0, truth.unsure * which))
            alike += int(rng.binomial(fresh, truth.agree))
            before = look
            counts = [_counts(total) for total in totals]
            verdict, _ = compare_counts(counts[0], counts[1], Pairs(look, alike), bounds)
            if verdict == "worse":
                return spent + look
        assert verdict == "passed"
        spent += looks[-1]
    return 0


def _counts(total: np.ndarray) -> Counts:
    seconds = total[1 : 1 + len(SECONDS)].tolist()
    return Counts(sum(seconds), int(total[0]), tuple(seconds), tuple(total[1 + len(SECONDS) :].tolist()))


def row(truth: Truth) -> str:
    """One line of the table."""
    undone, requests = simulate(truth)
    return f"| {truth.name} | {undone:.1%} | {'' if undone == 0 else f'{requests:,.0f}'} |"


def page() -> str:
    """The whole table as Markdown."""
    return "\n".join(["| the challenger | undone | after requests (mean) |", "|---|--:|--:|", *map(row, TRUTHS)])


def main() -> None:
    """Write the table into docs/rollout.md."""
    before, rest = DOCS.read_text("utf-8").split(BEGIN)
    DOCS.write_text(f"{before}{BEGIN}\n\n{page()}\n\n{END}{rest.split(END)[1]}", "utf-8")
    print(f"wrote the table of {DOCS}", file=sys.stderr)


if __name__ == "__main__":
    main()
