"""One peer under one row's load: first a check that it answers rightly, then wrk."""

import json
import re
import subprocess
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving.payloads import Pixels, Request
from benchmarks.serving.process import BenchmarkError, cpu_seconds

SCRIPT = Path(__file__).parent / "post.lua"
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Load:
    """What wrk saw: answers a second, and latencies in milliseconds; and the server's CPU time per answer in microseconds."""

    rate: float
    p50: float
    p99: float
    cpu: float


def check(url: str, request: Request, image: Pixels, label: str, confidence: float) -> None:
    """Raise BenchmarkError unless the peer gives the label and the confidence that the model has for this picture."""
    call = urllib.request.Request(url + request.path, request.body(image), request.headers(image), method="POST")
    with urllib.request.urlopen(call, timeout=30) as response:
        answer = json.load(response)
    found = _label_and_confidence(answer)
    if found[0] != label or abs(found[1] - confidence) > _TOLERANCE:
        raise BenchmarkError(f"{url}{request.path} answered {found}, expected {(label, confidence)}")


def measure(url: str, pid: int, request: Request, image: Pixels, connections: int, seconds: float) -> Load:
    """Run wrk with one thread against the server of a process tree; raises BenchmarkError when any request fails."""
    with tempfile.NamedTemporaryFile(suffix=".body") as body:
        body.write(request.body(image))
        body.flush()
        headers = [part for pair in request.headers(image).items() for part in pair]
        options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "-s", str(SCRIPT)]
        command = ["wrk", *options, url + request.path, "--", body.name, *headers]
        before = cpu_seconds(pid)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        used = cpu_seconds(pid) - before
    match = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    if match is None:
        raise BenchmarkError(f"wrk failed: {done.stdout}{done.stderr}")
    result = json.loads(match[1])
    if result["errors"] or result["bad_status"]:
        raise BenchmarkError(f"{url}{request.path}: {result['errors']} broken connections, {result['bad_status']} answers above 399")
    answers = result["requests"]
    return Load(1e6 * answers / result["duration_us"], result["p50_us"] / 1000, result["p99_us"] / 1000, 1e6 * used / max(1, answers))


def _label_and_confidence(answer: dict[str, Any]) -> tuple[str, float]:
    if "outputs" in answer:
        values = {output["name"]: output["data"][0] for output in answer["outputs"]}
    else:
        values = answer["predictions"][0] if "predictions" in answer else answer
    return values["label"], values["confidence"]
