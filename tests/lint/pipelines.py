"""Pipelines as users write them: for each rule one that it reports, and one that it leaves alone; compiled by kfp itself."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Optional

from kfp import compiler, dsl, kubernetes

IMAGE = "registry.example/steps:1.0.0"
step = functools.partial(dsl.component, install_kfp_package=False)
comp = functools.partial(step, base_image=IMAGE)
CASES: dict[tuple[str, str], tuple[Callable[..., Any], str | None]] = {}


@comp
def check(x: str) -> str:
    return x


@comp
def count(gpus: str) -> str:
    return gpus


@comp
def count_int(gpus: int) -> str:
    return str(gpus)


@comp
def named(x: str) -> NamedTuple("O", [("verdict", str), ("items", list)]):
    return (x, [])


@comp
def listing(x: str) -> list:
    return [x]


@comp
def measure(x: str) -> float:
    return 0.5


@comp
def train(data: str, model: dsl.Output[dsl.Model]) -> str:
    model.metadata["uri"] = "s3://models/1/"
    return "s3://models/1/"


@comp
def train_uri(data: str, model: dsl.Output[dsl.Model]) -> str:
    model.uri = "s3://models/1/"
    return data


@comp
def upload_it(path: str) -> str:
    import boto3

    boto3.client("s3").upload_file(path, "bucket", "key")
    return path


@comp
def fetch_it(url: str) -> str:
    from urllib.request import urlopen

    return urlopen(url).read().decode()


@comp
def loader(path: str, workers: int):
    from torch.utils.data import DataLoader

    for batch in DataLoader(path, num_workers=workers):
        print(batch)


@step(base_image=IMAGE, packages_to_install=["pandas", "numpy==2.1.0"])
def installs(x: str) -> str:
    return x


@step(base_image=IMAGE, packages_to_install=["pandas==2.2.3"])
def pinned(x: str) -> str:
    return x


@step(base_image="registry.example/steps:latest")
def on_latest(x: str) -> str:
    return x


@step(base_image="steps:1.0.0")
def on_local(x: str) -> str:
    return x


def ok(task: dsl.PipelineTask, timeout: int = 600, resources: bool = True, cache: bool = False) -> dsl.PipelineTask:
    """Settings that no rule reports."""
    task.set_caching_options(cache)
    if timeout:
        kubernetes.set_timeout(task, timeout)
    if resources:
        task.set_cpu_request("100m").set_memory_request("256Mi").set_memory_limit("512Mi")
    return task


def gpu(task: dsl.PipelineTask, limit: Any, tolerated: bool = True) -> None:
    task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(limit)
    if tolerated:
        kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")


def case(kind: str, rule: str, root: str | None = None) -> Callable[[Callable[..., Any]], None]:
    def register(function: Callable[..., Any]) -> None:
        CASES[rule, kind] = (function, root)

    return register


bad, good = functools.partial(case, "bad"), functools.partial(case, "good")


def compile_case(rule: str, kind: str, folder: Path) -> Path:
    function, root = CASES[rule, kind]
    path = folder / f"{rule}.{kind}.yaml"
    compiler.Compiler().compile(dsl.pipeline(name="example", pipeline_root=root)(function), str(path))
    return path


@bad("gpu-limit-from-integer")
def _(gpus: int = 1):
    t = ok(count_int(gpus=gpus))
    gpu(t, gpus)


@good("gpu-limit-from-integer")
def _(gpus: str = "1"):
    t = ok(count(gpus=gpus))
    gpu(t, gpus)


def oneof(cache):
    def f(x: str = "a"):
        with dsl.If(x == "a"):
            a = ok(check(x="a"), cache=cache)
        with dsl.Else():
            b = ok(check(x="b"), cache=cache)
        ok(check(x=dsl.OneOf(a.output, b.output)))

    return f


bad("oneof-over-cached-branch")(oneof(True))
good("oneof-over-cached-branch")(oneof(False))


@bad("oneof-over-artifacts")
def _(x: str = "a"):
    @comp
    def read(model: dsl.Input[dsl.Model]):
        print(model.path)

    with dsl.If(x == "a"):
        a = ok(train(data="a"))
    with dsl.Else():
        b = ok(train(data="b"))
    ok(read(model=dsl.OneOf(a.outputs["model"], b.outputs["model"])))


@good("oneof-over-artifacts")
def _(x: str = "a"):
    with dsl.If(x == "a"):
        a = ok(train(data="a"))
    with dsl.Else():
        b = ok(train(data="b"))
    ok(check(x=dsl.OneOf(a.outputs["Output"], b.outputs["Output"])))


@bad("setting-not-an-input")
def _(x: str = "a", secret: str = "s3"):
    with dsl.If(x == "a"):
        t = ok(check(x=x))
        kubernetes.use_secret_as_env(t, secret, {"key": "KEY"})
    with dsl.Else():
        ok(check(x="b"))


@good("setting-not-an-input")
def _(x: str = "a", secret: str = "s3"):
    with dsl.If(x == "a"):
        t = ok(check(x=secret))
        kubernetes.use_secret_as_env(t, secret, {"key": "KEY"})
    with dsl.Else():
        ok(check(x="b"))


@bad("quote-in-condition")
def _(x: str = "a"):
    with dsl.If(x == "it's"):
        ok(check(x="a"))
    with dsl.Else():
        ok(check(x="b"))


@good("quote-in-condition")
def _(x: str = "a"):
    with dsl.If(x == "it is"):
        ok(check(x="a"))
    with dsl.Else():
        ok(check(x="b"))


@bad("lone-condition-on-named-output")
def _(x: str = "a"):
    n = ok(named(x=x))
    with dsl.If(n.outputs["verdict"] == "deploy"):
        ok(check(x="a"))


@good("lone-condition-on-named-output")
def _(x: str = "a"):
    n = ok(check(x=x))
    with dsl.If(n.output == "deploy"):
        ok(check(x="a"))
    with dsl.Else():
        ok(check(x="b"))


@bad("integer-in-condition")
def _(n: int = 1):
    with dsl.If(n == 1):
        ok(check(x="a"))
    with dsl.Else():
        ok(check(x="b"))


@good("integer-in-condition")
def _(n: int = 1):
    with dsl.If(n == 1.0):
        ok(check(x="a"))
    with dsl.Else():
        ok(check(x="b"))


@bad("loop-over-named-output")
def _(x: str = "a"):
    n = ok(named(x=x))
    with dsl.ParallelFor(n.outputs["items"]) as item:
        ok(check(x=item))


@good("loop-over-named-output")
def _(x: str = "a"):
    n = ok(listing(x=x))
    with dsl.ParallelFor(n.output) as item:
        ok(check(x=item))


@bad("mutable-image-cached")
def _(x: str = "a"):
    ok(on_latest(x=x), cache=True)


@good("mutable-image-cached")
def _(x: str = "a"):
    ok(check(x=x), cache=True)


@bad("cached-side-effect")
def _(path: str = "a"):
    ok(upload_it(path=path), cache=True)


@good("cached-side-effect")
def _(path: str = "a"):
    ok(upload_it(path=path))


@bad("cached-outside-read")
def _(url: str = "a"):
    ok(fetch_it(url=url), cache=True)


@good("cached-outside-read")
def _(url: str = "a"):
    ok(fetch_it(url=url))


@bad("retry-without-effect")
def _(x: str = "a"):
    ok(check(x=x)).set_retry(0)


@good("retry-without-effect")
def _(x: str = "a"):
    ok(check(x=x)).set_retry(2, backoff_max_duration="1800s")


@bad("retry-bound-too-short")
def _(x: str = "a"):
    ok(check(x=x), timeout=7200).set_retry(2, backoff_max_duration="300s")


@good("retry-bound-too-short")
def _(x: str = "a"):
    ok(check(x=x), timeout=7200).set_retry(2, backoff_max_duration="21600s")


@bad("retry-of-lost-pods-only")
def _(x: str = "a"):
    ok(check(x=x)).set_retry(2, backoff_max_duration="1800s")


@good("retry-of-lost-pods-only")
def _(x: str = "a"):
    ok(check(x=x))


@comp
def maybe(n: Optional[int] = None):  # noqa: UP045  kfp does not know the other form
    print(n)


@bad("optional-without-default")
def _(n: Optional[int] = None):  # noqa: UP045  kfp does not know the other form
    ok(maybe(n=n))


@good("optional-without-default")
def _(n: int = 0):
    ok(maybe(n=n))


@bad("artifact-uri-set")
def _(x: str = "a"):
    ok(train_uri(data=x))


@good("artifact-uri-set")
def _(x: str = "a"):
    ok(train(data=x))


@bad("no-timeout")
def _(x: str = "a"):
    ok(check(x=x), timeout=0)


@good("no-timeout")
def _(x: str = "a"):
    ok(check(x=x))


@bad("step-without-resources")
def _(x: str = "a"):
    ok(check(x=x), resources=False)


@good("step-without-resources")
def _(x: str = "a"):
    ok(check(x=x))


@bad("gpu-without-toleration")
def _(gpus: str = "1"):
    gpu(ok(count(gpus=gpus)), gpus, tolerated=False)


@good("gpu-without-toleration")
def _(gpus: str = "1"):
    gpu(ok(count(gpus=gpus)), gpus)


@bad("small-shared-memory")
def _(x: str = "a"):
    ok(loader(path=x, workers=4))


@good("small-shared-memory")
def _(x: str = "a"):
    kubernetes.empty_dir_mount(ok(loader(path=x, workers=4)), volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit="2Gi")


@bad("unpinned-packages")
def _(x: str = "a"):
    ok(installs(x=x))


@good("unpinned-packages")
def _(x: str = "a"):
    ok(pinned(x=x))


@bad("large-constant")
def _(x: str = "a"):
    ok(check(x="a" * 200_000))


@good("large-constant")
def _(x: str = "a"):
    ok(check(x="s3://bucket/list.json"))


@bad("minio-pipeline-root", "minio://mlpipeline/root")
def _(x: str = "a"):
    ok(check(x=x))


@good("minio-pipeline-root", "s3://mlpipeline/root")
def _(x: str = "a"):
    ok(check(x=x))


@bad("latest-image")
def _(x: str = "a"):
    ok(on_latest(x=x))


@good("latest-image")
def _(x: str = "a"):
    ok(check(x=x))


@bad("image-without-registry")
def _(x: str = "a"):
    ok(on_local(x=x))


@good("image-without-registry")
def _(x: str = "a"):
    ok(check(x=x))
