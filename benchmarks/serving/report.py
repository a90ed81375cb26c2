"""Medians over the rounds, ratios to Penstock, and the Markdown table."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.serving.load import Load
from benchmarks.serving.peers import BARE, KSERVE, PENSTOCK, ROWS, Peer

Cell = tuple[str, int]
"""A row and a number of connections."""


@dataclass
class Results:
    """All measurements of one peer, one a round."""

    peer: Peer
    loads: dict[Cell, list[Load]] = field(default_factory=dict)
    starts: list[float] = field(default_factory=list)
    """Seconds from process start to the first readiness 200."""
    memory_ready: list[tuple[float, float]] = field(default_factory=list)
    """(RSS, PSS) in MB when ready."""
    memory_after: list[tuple[float, float]] = field(default_factory=list)
    """The same after all load."""

    def rate(self, cell: Cell) -> float:
        """Median answers a second."""
        return median(load.rate for load in self.loads[cell])

    def p99(self, cell: Cell) -> float:
        """Median of the rounds' 99th percentiles, ms."""
        return median(load.p99 for load in self.loads[cell])

    def cpu(self, cell: Cell) -> float:
        """Median CPU time per answer, µs: other load on the machine changes it less than the rate."""
        return median(load.cpu for load in self.loads[cell])


def markdown(results: Sequence[Results], connections: Sequence[int], rounds: int, seconds: float) -> str:
    """The whole report."""
    lines = [
        f"{_machine()}; {rounds} rounds, peers interleaved, {seconds:g} s a cell; medians. All on the same 2 cores, wrk included.",
        "",
        "| request | connections | server | requests/s | p99 ms | CPU µs per request | requests/s, Penstock = 1 | spread over rounds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        for count in connections:
            lines += _cell_lines(results, (row, count))
    lines += ["", "| server | start to ready, s | RSS MB, ready | RSS MB, after load | PSS MB, after load |", "|---|---|---|---|---|"]
    for result in results:
        ready, after = median(m[0] for m in result.memory_ready), median(m[0] for m in result.memory_after)
        shared = median(m[1] for m in result.memory_after)
        lines.append(f"| {result.peer.name} | {median(result.starts):.2f} | {ready:.0f} | {after:.0f} | {shared:.0f} |")
    notes = [f"- {r.peer.name}, {row}: {q.note}." for r in results for row, q in r.peer.requests.items() if q.note]
    return "\n".join([*lines, "", *notes, "", *_goals(results, connections)]) + "\n"


def _cell_lines(results: Sequence[Results], cell: Cell) -> list[str]:
    own = next((r.rate(cell) for r in results if r.peer is PENSTOCK), None)
    lines = []
    for result in results:
        rates = [load.rate for load in result.loads[cell]]
        ratio = f"{result.rate(cell) / own:.2f}" if own else ""
        spread = f"{min(rates):.0f} to {max(rates):.0f}"
        lines.append(
            f"| {cell[0]} | {cell[1]} | {result.peer.name} | {result.rate(cell):.0f} | {result.p99(cell):.2f} "
            f"| {result.cpu(cell):.0f} | {ratio} | {spread} |"
        )
    return lines


def _goals(results: Sequence[Results], connections: Sequence[int]) -> list[str]:
    """Say for each cell whether Penstock is ahead of every peer, and how it stands to the stock KServe model and the limit."""
    own = next((r for r in results if r.peer is PENSTOCK), None)
    if own is None:
        return []
    lines = ["| request | connections | x stock KServe | x bare limit | behind, requests/s | behind, p99 |", "|---|---|---|---|---|---|"]
    for cell in ((row, count) for row in ROWS for count in connections):
        others = [r for r in results if r.peer is not PENSTOCK and r.peer is not BARE]
        slower = [r.peer.name for r in others if r.rate(cell) >= own.rate(cell)]
        later = [r.peer.name for r in others if r.p99(cell) <= own.p99(cell)]
        times = [f"{own.rate(cell) / r.rate(cell):.2f}" if r else "" for r in (_of(results, KSERVE), _of(results, BARE))]
        lines.append(f"| {cell[0]} | {cell[1]} | {times[0]} | {times[1]} | {', '.join(slower) or 'none'} | {', '.join(later) or 'none'} |")
    return lines


def _of(results: Sequence[Results], peer: Peer) -> Results | None:
    return next((r for r in results if r.peer is peer), None)


def _machine() -> str:
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return f"{model or platform.processor()}, Python {platform.python_version()}, {platform.system()} {platform.release()}"
