"""Threads follow the container's CPU quota and affinity, never the host's count."""

import os
from pathlib import Path

import httpx
import numpy as np
import pytest

from components.classifier.cpu import available_cpus
from components.predictor.loaded_model import load
from components.validate_serving.predictor_process import predictor
from tests.predictor.versions import NAME, PREDICT


@pytest.mark.parametrize(
    ("content", "cpus"), [("100000 100000", 1), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", 64)]
)
def test_cgroup_v2_quotas_are_rounded_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, cpus: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    (tmp_path / "cpu.max").write_text(content)
    assert available_cpus(tmp_path) == cpus


def test_cgroup_v1_quotas_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(28)))
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("1200000")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert available_cpus(tmp_path) == 12


def test_pinned_to_one_cpu_it_serves_without_a_word_about_it(served_dir: Path, pictures: np.ndarray) -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})  # children inherit it
    try:
        with predictor(NAME, served_dir, 60) as (process, started):
            assert httpx.post(started.url + PREDICT, json={"instances": pictures.tolist()}, timeout=60).status_code == 200
            events = process.events()
    finally:
        os.sched_setaffinity(0, allowed)
    assert [event["event"] for event in events] == ["listening", "serving"]
    assert events[1]["cpus"] == 1


def test_more_threads_are_taken_only_where_they_help(served_dir: Path) -> None:
    assert load(NAME, served_dir, threads=1).classifier is not None
    before = len(list(Path("/proc/self/task").iterdir()))
    kept = [load(NAME, served_dir) for _ in range(3)]
    assert len(list(Path("/proc/self/task").iterdir())) - before <= 3 * available_cpus()
    assert len(kept) == 3
