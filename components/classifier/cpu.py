"""What this process may really use: the container's CPU quota and memory limit, not the host's."""

import math
import os
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")


def available_cpus(root: Path = CGROUP_ROOT) -> int:
    """Return the number of usable CPUs: those of the affinity mask, at most the cgroup's quota rounded up, at least 1.

    Reads cgroup v2 `cpu.max` (of this process' group and of the root) and cgroup v1 `cpu.cfs_quota_us`.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    for quota in (_v2_quota(root), _v1_quota(root)):
        if quota is not None:
            cpus = min(cpus, max(1, math.ceil(quota)))
    return max(1, cpus)


def available_memory(root: Path = CGROUP_ROOT) -> int:
    """Bytes of memory: the machine's, capped by the limits of cgroup v2 (`memory.max`) and v1 (`memory.limit_in_bytes`)."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in (root / "memory.max", root / _own_group() / "memory.max", root / "memory" / "memory.limit_in_bytes"):
        try:
            limits.append(int(path.read_text()))  # "max": no limit
        except (OSError, ValueError):
            continue
    return min(limits)


def _v2_quota(root: Path) -> float | None:
    quotas = [_ratio(path) for path in {root / "cpu.max", root / _own_group() / "cpu.max"}]
    return min((quota for quota in quotas if quota is not None), default=None)


def _own_group() -> str:
    try:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            number, _, group = line.split(":", 2)
            if number == "0":
                return group.lstrip("/")
    except (OSError, ValueError):
        return ""
    return ""


def _ratio(path: Path) -> float | None:
    try:
        quota, period = path.read_text().split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _v1_quota(root: Path) -> float | None:
    try:
        quota = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        period = int((root / "cpu" / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None
