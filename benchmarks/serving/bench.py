"""Serving benchmark: Penstock's predictor beside its peers, one machine, one run.

    python -m benchmarks.serving.bench --rounds 5 --seconds 8 --output benchmarks/serving/RESULTS.md

Each peer is installed, with pinned versions, into an environment of its own below --cache. In each round every peer is
started, checked for right answers, loaded row by row with wrk, and stopped, so that a noisy minute hits all of them.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.serving.load import check, measure
from benchmarks.serving.model import model_version
from benchmarks.serving.payloads import Pixels
from benchmarks.serving.peers import PEERS, ROWS
from benchmarks.serving.process import BenchmarkError, Running, install, serve
from benchmarks.serving.report import Results, markdown
from components.bundle.golden import load_golden
from components.bundle.model import Classifier

CONNECTIONS = (1, 16)
CORES = 2


def main() -> None:
    """Run the benchmark as the options say and print the table."""
    options = _options()
    if shutil.which("wrk") is None:
        sys.exit("error: wrk is not installed; `apt-get install wrk`")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])  # servers and wrk inherit it
    try:
        text = run(options)
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
    print(text)
    if options.output:
        options.output.write_text(text)


def run(options: argparse.Namespace) -> str:
    """Install, prepare, measure all rounds; returns the report."""
    chosen = [peer for peer in PEERS if not options.peer or any(name.lower() in peer.name.lower() for name in options.peer)]
    binaries = {peer.name: install(peer, options.cache / "peers") for peer in chosen}
    model = options.model or model_version(options.cache)
    pictures, _ = load_golden(model)
    classifier = Classifier(model, threads=1)
    probabilities = classifier.probabilities(pictures[:1])[0]
    expected = classifier.classes[probabilities.argmax()], float(probabilities.max())
    results = {peer.name: Results(peer) for peer in chosen}
    for number in range(options.rounds):
        for peer in chosen:
            print(f"round {number + 1} of {options.rounds}: {peer.name}", file=sys.stderr)
            with tempfile.TemporaryDirectory() as work, serve(peer, binaries[peer.name], model, Path(work)) as running:
                _measure_peer(running, results[peer.name], pictures[0], expected, options.seconds)
    return markdown(list(results.values()), CONNECTIONS, options.rounds, options.seconds)


def _measure_peer(running: Running, result: Results, image: Pixels, expected: tuple[str, float], seconds: float) -> None:
    result.starts.append(running.seconds_to_ready)
    result.memory_ready.append(running.memory())
    for row in ROWS:
        request = result.peer.requests[row]
        check(running.url, request, image, *expected)
        measure(running.url, running.pid, request, image, max(CONNECTIONS), 1)  # warm
        for connections in CONNECTIONS:
            load = measure(running.url, running.pid, request, image, connections, seconds)
            result.loads.setdefault((row, connections), []).append(load)
    result.memory_after.append(running.memory())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Benchmark the predictor beside its peers.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8, help="load a cell")
    parser.add_argument("--peer", action="append", help="part of a peer's name; may be given again; default: all")
    parser.add_argument("--model", type=Path, help="a model version's folder; default: a small one is trained")
    parser.add_argument("--cache", type=Path, default=Path(".penstock/bench-serving"), help="environments and the model")
    parser.add_argument("--output", type=Path, help="write the Markdown here")
    options = parser.parse_args()
    options.cache = options.cache.absolute()
    options.model = options.model and options.model.absolute()
    return options


if __name__ == "__main__":
    main()
