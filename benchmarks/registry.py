"""Seconds to publish a version of 100 MB, beside copying and hashing the same files by the usual tools in the same run.

    python -m benchmarks.registry [--megabytes 100] [--repeats 7] [--no-s3]

`cp + sha256sum` are the programs of those names, one after the other, into a new folder of the same disk; publishing hashes, copies and
also waits until everything is on the disk (fsync), which cp does not. `boto3 upload_file` is boto3's own client with its own
settings, file after file, to the same ministack server (started here). Rounds alternate, and each writes to a new place. Memory is the
growth of the peak of a process that publishes, over one that has only loaded the same modules. Wall seconds; medians of the repeats.
"""

import argparse
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.bundle.config import BundleConfig, InputConfig
from components.classifier.cpu import available_cpus
from components.registry import Registry
from components.registry.publication import publish_directory
from components.storage import Store, open_store

LOCAL_LIMIT, S3_LIMIT = 1.5, 1.3


def make_bundle(directory: Path, megabytes: int) -> Path:
    """A version of the usual make-up: two large files and some small ones, of random bytes."""
    directory.mkdir()
    shares = {"model.onnx": 0.48, "model.safetensors": 0.48, "predictions.npz": 0.02, "golden.npz": 0.015, "report.html": 0.005}
    for name, share in shares.items():
        (directory / name).write_bytes(os.urandom(int(megabytes * 1e6 * share)))
    BundleConfig(
        name="digits",
        architecture="none",
        classes=["a", "b"],
        input=InputConfig(height=8, width=8, channels=1, mean=[0.0], std=[1.0]),
        temperature=1.0,
        trained_at="2026-01-02T03:04:05+00:00",
        dataset_digest="0" * 64,
        parameters={},
        code_version="benchmark",
    ).save(directory)
    return directory


def publish(store: Store, bundle: Path, name: str) -> None:
    """What is measured."""
    publish_directory(Registry(store, name), bundle)


def copy_and_hash(bundle: Path, target: Path) -> None:
    """What people would type."""
    target.mkdir()
    files = sorted(str(path) for path in bundle.iterdir())
    subprocess.run(["cp", *files, str(target)], check=True)
    subprocess.run(["sha256sum", *files], check=True, stdout=subprocess.DEVNULL)


def upload(client: Any, bucket: str, bundle: Path, prefix: str) -> None:
    """boto3's own way, file after file."""
    for path in sorted(bundle.iterdir()):
        client.upload_file(str(path), bucket, f"{prefix}/{path.name}")


def seconds(act: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def local_rounds(bundle: Path, scratch: Path, repeats: int) -> dict[str, list[float]]:
    """Alternate the two on a disk, after one round of each that does not count."""
    times: dict[str, list[float]] = {"publish to a directory": [], "cp + sha256sum": []}
    for number in range(repeats + 1):
        found = {
            "publish to a directory": seconds(lambda n=number: publish(open_store(str(scratch / f"store{n}")), bundle, "digits")),  # type: ignore[misc]
            "cp + sha256sum": seconds(lambda n=number: copy_and_hash(bundle, scratch / f"copy{n}")),  # type: ignore[misc]
        }
        for folder in (scratch / f"store{number}", scratch / f"copy{number}"):
            shutil.rmtree(folder)
        os.sync()  # neither pays for the other's bytes
        if number:
            for name, value in found.items():
                times[name].append(value)
    return times


def s3_rounds(bundle: Path, server: Any, repeats: int) -> dict[str, list[float]]:
    """Alternate the two on ministack, after one round of each that does not count."""
    import boto3

    bucket, client = server.make_bucket(), boto3.client("s3", region_name="us-east-1")
    store = open_store(f"s3://{bucket}/store")  # as the other client, made once in a process
    times: dict[str, list[float]] = {"publish to ministack": [], "boto3 upload_file": []}
    for number in range(repeats + 1):
        found = {
            "publish to ministack": seconds(lambda n=number: publish(store, bundle, f"digits{n}")),  # type: ignore[misc]
            "boto3 upload_file": seconds(lambda n=number: upload(client, bucket, bundle, f"plain{n}")),  # type: ignore[misc]
        }
        _empty(server, bucket)
        if number:
            for name, value in found.items():
                times[name].append(value)
    return times


def memory(address: str, bundle: Path | None) -> float:
    """Peak memory in MB of a process of its own that publishes, or that only loads what it needs."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_peak, args=(address, bundle, queue))
    process.start()
    peak: float = queue.get()
    process.join()
    return peak


def _peak(address: str, bundle: Path | None, queue: Any) -> None:
    store = open_store(address)
    if bundle is not None:
        publish(store, bundle, "digits")
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    queue.put(int(status["VmHWM"].split()[0]) / 1000)


def _empty(server: Any, bucket: str) -> None:
    client = server.client()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            client.delete_object(Bucket=bucket, Key=item["Key"])


@contextmanager
def reachable(server: Any) -> Iterator[None]:
    """Put a server's address and keys into the environment."""
    before = dict(os.environ)
    os.environ.update(server.environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def report(times: dict[str, list[float]], megabytes: int, limit: float) -> bool:
    """Print medians, spread and ratio; say whether the ratio keeps to the limit."""
    for name, values in times.items():
        middle = statistics.median(values)
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"{name:<24} {middle:6.2f} s  ({spread}, n={len(values)})  {megabytes / middle:6.0f} MB/s")
    ours, theirs = (statistics.median(values) for values in times.values())
    print(f"{'ratio':<24} {ours / theirs:6.2f}    limit {limit}")
    return ours / theirs <= limit


def main() -> None:
    """Run both comparisons and the memory check, print them, and exit with 1 past a limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--no-s3", action="store_true", help="only the local disk")
    arguments = parser.parse_args()
    print(f"{arguments.megabytes} MB in 6 files, {available_cpus()} CPUs, {platform.machine()}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="penstock-benchmark-") as name:
        scratch = Path(name)
        bundle, large = make_bundle(scratch / "bundle", arguments.megabytes), make_bundle(scratch / "large", 4 * arguments.megabytes)
        good = report(local_rounds(bundle, scratch, arguments.repeats), arguments.megabytes, LOCAL_LIMIT)
        _print_memory("directory", str(scratch / "memory"), {arguments.megabytes: bundle, 4 * arguments.megabytes: large})
        if not arguments.no_s3:
            from tests.storage.servers import ministack

            with ministack(scratch / "ministack") as server, reachable(server):
                good &= report(s3_rounds(bundle, server, arguments.repeats), arguments.megabytes, S3_LIMIT)
                _print_memory("ministack", "s3://penstock-tests/memory", {arguments.megabytes: bundle, 4 * arguments.megabytes: large})
    raise SystemExit(0 if good else 1)


def _print_memory(where: str, address: str, bundles: dict[int, Path]) -> None:
    idle = memory(address, None)
    grown = ", ".join(f"{memory(f'{address}{size}', bundle) - idle:.0f} MB for {size} MB" for size, bundle in bundles.items())
    print(f"{'memory, ' + where:<24} {grown} (idle {idle:.0f} MB)")


if __name__ == "__main__":
    main()
