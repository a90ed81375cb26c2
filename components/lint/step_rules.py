"""Traps of single steps on Kubeflow Pipelines: caching, retries, images, what a pod asks for; seen on its 2.17 backend."""

import ast
import re
from collections.abc import Iterator

from components.classifier.errors import listed
from components.lint.pipeline import Pipeline, Task, is_image, parameters_in, seconds, split_image
from components.lint.registry import Hit, Level, rule
from components.lint.values import at, mapping, number, sequence, text

_MUTABLE_TAG = re.compile(
    r"latest|main|master|dev|develop|edge|nightly|stable|prod|production|staging|test|snapshot|current|head", re.IGNORECASE
)


@rule(Level.ERROR)
def gpu_limit_from_integer(pipeline: Pipeline) -> Iterator[Hit]:
    """An accelerator limit that comes from an integer parameter asks for no GPU.

    The pod is made with empty resources and runs on any node: the run is green, and the step computed on a CPU.

    Fix: declare the parameter as str ("0", "1"), and pass it to set_accelerator_limit.
    """
    producers = {(task.group, task.name): task for task in pipeline.tasks}
    for task in pipeline.steps:
        place = ("container", "resources", "accelerator", "resourceCount")
        for parameter in parameters_in(at(pipeline.executors, task.executor, *place)):
            given = mapping(task.spec, "inputs", "parameters", parameter)
            producer = producers.get((task.group, text(given, "taskOutputParameter", "producerTask")))
            output = text(given, "taskOutputParameter", "outputParameterKey")
            kind = pipeline.input_type(task.group, text(given, "componentInputParameter"))
            if producer:
                kind = text(producer.component, "outputDefinitions", "parameters", output, "parameterType")
            if kind.startswith("NUMBER"):
                name = parameter.removeprefix("pipelinechannel--")
                yield Hit(pipeline.executor_at(task.executor, *place), f"task {task.name}: the limit is {name}, a number")


@rule(Level.WARNING)
def mutable_image_cached(pipeline: Pipeline) -> Iterator[Hit]:
    """A step may be cached, and its image's tag can change its content.

    The cache's key holds the image's name, not its content: after a new push under the same tag, the run is green with the old
    code's result.

    Fix: name an immutable tag or a digest, or task.set_caching_options(False).
    """
    for task in pipeline.steps:
        image = text(pipeline.executors, task.executor, "container", "image")
        _, tag, digest = split_image(image)
        if task.cached and is_image(image) and not digest and (not tag or _MUTABLE_TAG.fullmatch(tag)):
            yield Hit(pipeline.executor_at(task.executor, "container", "image"), f"task {task.name} is cached, and runs {image}")


_CHANGES = re.compile(r"(deploy|publish|upload|push|notify|send|delete|rollout|rollback|promote|register|undeploy|email|slack)(?![a-z])")
_WRITING_CALLS = re.compile(
    r"post|put|patch|delete|put_object|upload_file(obj)?|delete_objects?|copy_object|sendmail|send_message|upload_from_(filename|string)|upload_blob"
)
_WRITING_PREFIXES = ("create_namespaced_", "patch_namespaced_", "replace_namespaced_", "delete_namespaced_", "create_cluster_custom_")
_OUTWARD = {"requests", "httpx", "boto3", "kubernetes", "smtplib", "google", "azure", "kserve", "minio"}
_READING_CALLS = re.compile(r"urlopen|urlretrieve|get_object|download_file(obj)?|read_sql|read_gbq|clone_from|snapshot_download")
_TOOLS = re.compile(r"\b(kubectl (apply|create|delete|patch)|gsutil cp|aws s3 (cp|sync|rm)|docker push|git push)\b")


@rule(Level.WARNING)
def cached_side_effect(pipeline: Pipeline) -> Iterator[Hit]:
    """A step that changes something outside of the run may be cached.

    On the second run with the same inputs the step is green and does nothing: no deployment, no upload, no message.

    Fix: task.set_caching_options(False).
    """
    for task in pipeline.steps:
        if task.cached and (what := _side_effect(pipeline, task)):
            yield Hit(task.at("cachingOptions", "enableCache"), f"task {task.name} {what}, and may be cached")


def _side_effect(pipeline: Pipeline, task: Task) -> str:
    for function in pipeline.functions(task.executor):
        outward = bool(_imports(function) & _OUTWARD)
        for call in _calls(function):
            owner, _, name = call.rpartition(".")
            if name.startswith(_WRITING_PREFIXES) or (owner and outward and _WRITING_CALLS.fullmatch(name)):
                return f"calls {call}()"
    if match := _TOOLS.search(pipeline.source(task.executor)):
        return f"runs `{match[0]}`"
    if match := _CHANGES.match(task.name):
        return f"by its name serves to {match[1]}"
    return ""


def _imports(function: ast.FunctionDef) -> set[str]:
    """The top packages that a function imports, and the names that it gives them."""
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Import):
            found |= {name.split(".")[0] for alias in node.names for name in (alias.name, alias.asname) if name}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def _calls(function: ast.FunctionDef) -> Iterator[str]:
    """The dotted names of what a function calls."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            parts = []
            target = node.func
            while isinstance(target, ast.Attribute):
                parts.append(target.attr)
                target = target.value
            parts.append(target.id if isinstance(target, ast.Name) else "…")
            yield ".".join(reversed(parts))


@rule(Level.NOTE)
def cached_outside_read(pipeline: Pipeline) -> Iterator[Hit]:
    """A step that reads from outside of the run may be cached.

    Where what lies at the address changes, later runs go on with the old data; they are green.

    Fix: task.set_caching_options(False), or pass a digest or version of the content as a parameter.
    """
    for task in pipeline.steps:
        for function in pipeline.functions(task.executor):
            imported = _imports(function)
            found = [
                it
                for it in _calls(function)
                if _READING_CALLS.fullmatch(it.rpartition(".")[2]) or (it in ("requests.get", "httpx.get") and it.split(".")[0] in imported)
            ]
            if task.cached and found:
                yield Hit(task.at("cachingOptions", "enableCache"), f"task {task.name} calls {found[0]}(), and may be cached")
                break


@rule(Level.WARNING)
def retry_without_effect(pipeline: Pipeline) -> Iterator[Hit]:
    """A retry policy that allows no second try.

    The step fails at its first error, although its settings ask for retries.

    Fix: set_retry(num_retries=2, …), with at least one retry; and retry inside the step what can pass by itself.
    """
    for task in pipeline.steps:
        policy = mapping(task.spec, "retryPolicy")
        if policy and not number(policy, "maxRetryCount"):
            yield Hit(task.at("retryPolicy"), f"task {task.name}: the number of retries is {at(policy, 'maxRetryCount') or 0}")


@rule(Level.WARNING)
def retry_bound_too_short(pipeline: Pipeline) -> Iterator[Hit]:
    """All tries of a step together get less time than the step itself may take.

    backoff_max_duration does not bound the pause: it counts from the first try's start. A step that takes longer has no retry, or is
    ended in the middle of its work. Without the argument kfp writes one hour.

    Fix: set_retry(…, backoff_max_duration=…) of at least (retries + 1) times the step's timeout, and kubernetes.set_timeout.
    """
    for task in pipeline.steps:
        bound = seconds(at(task.spec, "retryPolicy", "backoffMaxDuration"))
        tries = number(task.spec, "retryPolicy", "maxRetryCount")
        if not bound or not tries:
            continue
        timeout = number(pipeline.settings(task.executor), "activeDeadlineSeconds")
        if timeout is None:
            yield Hit(
                task.at("retryPolicy", "backoffMaxDuration"),
                f"task {task.name}: {bound:.0f} s for {tries + 1} tries, and no timeout says how long one may take",
            )
        elif bound < 2 * timeout:
            yield Hit(
                task.at("retryPolicy", "backoffMaxDuration"),
                f"task {task.name}: {bound:.0f} s for {tries + 1} tries, and one may take {timeout} s",
            )


@rule(Level.NOTE)
def retry_of_lost_pods_only(pipeline: Pipeline) -> Iterator[Hit]:
    """set_retry does not repeat a step that fails, on a stock installation.

    Kubeflow's defaults for Argo (retryPolicy: OnError) are merged into every step: a step that exits with an error or runs out of
    memory is not tried again. Only a pod that was lost is.

    Fix: retry inside the step what can pass by itself, or have the cluster's workflowDefaults changed to retryPolicy: Always.
    """
    found = [task for task in pipeline.steps if number(task.spec, "retryPolicy", "maxRetryCount")]
    if found:
        yield Hit(found[0].at("retryPolicy"), f"retries are set on {listed(it.name for it in found)}")


@rule(Level.WARNING)
def artifact_uri_set(pipeline: Pipeline) -> Iterator[Hit]:
    """A step sets the URI of an output artifact by hand.

    A local run takes it. On a cluster the launcher uploads to the pipeline root all the same, or fails for another bucket.

    Fix: write to the artifact's path, and return the other address as a text, or put it into the artifact's metadata.
    """
    for task in pipeline.steps:
        artifacts = mapping(task.component, "outputDefinitions", "artifacts")
        outputs = {name for name, it in artifacts.items() if text(it, "artifactType", "schemaTitle").startswith("system.")}
        for function in pipeline.functions(task.executor):
            for output in sorted(_uris_set(function) & outputs):
                yield Hit(pipeline.executor_at(task.executor), f"task {task.name}: {function.name}() sets {output}.uri")


def _uris_set(function: ast.FunctionDef) -> set[str]:
    """The names whose attribute `uri` is assigned; an oci:// address is none, since KFP takes models from there as they are."""
    return {
        target.value.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and "oci://" not in ast.unparse(node.value)
        for target in node.targets
        if isinstance(target, ast.Attribute) and target.attr == "uri" and isinstance(target.value, ast.Name)
    }


@rule(Level.NOTE)
def no_timeout(pipeline: Pipeline) -> Iterator[Hit]:
    """Steps have no timeout.

    A step whose image cannot be pulled, whose secret is missing or whose GPU is taken waits for ever; the run stays "running".

    Fix: kubernetes.set_timeout(task, seconds) from kfp-kubernetes.
    """
    found = [task for task in pipeline.steps if at(pipeline.settings(task.executor), "activeDeadlineSeconds") is None]
    if found:
        yield Hit(found[0].at(), f"no timeout: {listed(it.name for it in found)}")


@rule(Level.NOTE)
def step_without_resources(pipeline: Pipeline) -> Iterator[Hit]:
    """Steps have neither requests nor limits.

    A namespace with a ResourceQuota refuses their pods; elsewhere one step can take a node's memory, and others are ended for it.

    Fix: task.set_cpu_request, set_memory_request and set_memory_limit.
    """
    asked = [(task, " ".join(mapping(pipeline.executors, task.executor, "container", "resources"))) for task in pipeline.steps]
    found = [task for task, names in asked if not re.search("cpu|memory", names, re.IGNORECASE)]
    if found:
        yield Hit(pipeline.executor_at(found[0].executor), f"no requests or limits: {listed(it.name for it in found)}")


@rule(Level.NOTE)
def gpu_without_toleration(pipeline: Pipeline) -> Iterator[Hit]:
    """A step asks for a GPU, and tolerates no taint.

    Nodes with GPUs are usually tainted (nvidia.com/gpu:NoSchedule): the pod stays Pending, for ever when it has no timeout.

    Fix: kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule").
    """
    for task in pipeline.steps:
        accelerator = mapping(pipeline.executors, task.executor, "container", "resources", "accelerator")
        asked = at(accelerator, "resourceCount") or at(accelerator, "count")
        if asked and str(asked) != "0" and not sequence(pipeline.settings(task.executor), "tolerations"):
            yield Hit(pipeline.executor_at(task.executor, "container", "resources", "accelerator"), f"task {task.name} has no toleration")


@rule(Level.WARNING)
def small_shared_memory(pipeline: Pipeline) -> Iterator[Hit]:
    """A step's data loader has worker processes, and /dev/shm is 64 MB.

    Workers hand batches over by shared memory: they die of "bus error", and the step fails with "DataLoader worker killed".

    Fix: kubernetes.empty_dir_mount(task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit="2Gi").
    """
    for task in pipeline.steps:
        mounts = sequence(pipeline.settings(task.executor), "emptyDirMounts")
        if any(text(it, "mountPath") == "/dev/shm" for it in mounts):
            continue
        for function in pipeline.functions(task.executor):
            if any(_workers(node) for node in ast.walk(function) if isinstance(node, ast.Call)):
                yield Hit(pipeline.executor_at(task.executor), f"task {task.name}: {function.name}() uses a DataLoader with workers")
                break


def _workers(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    counts = [it.value for it in call.keywords if it.arg == "num_workers"]
    return name == "DataLoader" and bool(counts) and not (isinstance(counts[0], ast.Constant) and not counts[0].value)


@rule(Level.NOTE)
def unpinned_packages(pipeline: Pipeline) -> Iterator[Hit]:
    """A step installs packages without a version when it starts.

    The same pipeline runs other code next month, a registry that cannot be reached fails the step, and the cache does not notice.

    Fix: packages_to_install=["name==1.2.3"], or an image that holds them.
    """
    found: dict[str, str] = {}
    for task in pipeline.steps:
        for line in re.findall(r"pip install ([^\n&|;]*)", pipeline.source(task.executor)):
            loose = [it for it in re.findall(r"'([^']+)'", line) if re.fullmatch(r"[A-Za-z0-9][\w.-]*(\[[\w,-]+\])?", it)]
            if loose:
                found.setdefault(task.executor, f"task {task.name} installs {listed(loose)}")
    for executor, seen in found.items():
        yield Hit(pipeline.executor_at(executor), seen)
