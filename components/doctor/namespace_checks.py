"""Checks of the namespaces: rights, accounts, secrets, quotas, Pod Security, images."""

import json
from collections.abc import Callable, Iterator

from components.classifier.errors import UsageError, listed
from components.doctor.cluster_checks import KSERVE_DOCS
from components.doctor.registry import Result, Results, broken, check, ok, warning
from components.doctor.seen import DEPLOY_RIGHTS, PULL_FAILURES, RUN_RIGHTS, STEPS_SECRET, NotSeen, Object, Seen, Unseen, apply
from components.lint.values import at
from components.storage.s3_settings import tidy_endpoint

_S3 = "serving.kserve.io/s3-"
_ROLE_ARN = "eks.amazonaws.com/role-arn"
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def _install(namespace: str) -> str:
    """What makes the objects of manifests/base; over those of an overlay it would take back the store's address, rights and image."""
    return (
        "apply your overlay of manifests/ again (kubectl apply -k …); where this namespace has none:\n"
        f"kubectl kustomize manifests/base | sed 's/namespace: penstock$/namespace: {namespace}/' | kubectl apply -f -"
    )


@check()
def namespaces_exist(seen: Seen) -> Results:
    """The namespace that models are served in."""
    name = seen.scope.namespace
    if seen.find("namespace") is None:
        yield broken(f"namespace {name} does not exist", "nothing can be deployed there", f"kubectl create namespace {name}")
    else:
        yield ok(f"namespace {name}")


@check("deploy")
def serving_runtime(seen: Seen) -> Results:
    """The ServingRuntime that services name, and the model format that it takes."""
    scope = seen.scope
    runtime = seen.find("ServingRuntime") or seen.find("ClusterServingRuntime")
    if runtime is None:
        yield broken(
            f"no ServingRuntime {scope.runtime} in namespace {scope.namespace}",
            "the service is accepted and never gets a pod (RuntimeNotRecognized)",
            _install(scope.namespace),
        )
        return
    name = at(runtime, "metadata", "name")
    formats = [str(it.get("name")) for it in at(runtime, "spec", "supportedModelFormats") or []]
    kind = str(runtime.get("kind") or "ServingRuntime").lower()
    where = f"-n {scope.namespace} " if kind == "servingruntime" else ""
    if at(runtime, "spec", "disabled"):
        patch = '{"spec": {"disabled": false}}'
        yield broken(
            f"{name} is disabled", "the service never gets a pod", f"kubectl {where}patch {kind} {name} --type merge --patch '{patch}'"
        )
    elif scope.model_format not in formats:
        patch = json.dumps(
            {
                "spec": {
                    "supportedModelFormats": [
                        *(at(runtime, "spec", "supportedModelFormats") or []),
                        {"name": scope.model_format, "version": "1"},
                    ]
                }
            }
        )
        yield broken(
            f"{name} takes {', '.join(formats) or 'no format'}, not {scope.model_format}",
            "the service never gets a pod (NoSupportingRuntime)",
            f"kubectl {where}patch {kind} {name} --type merge --patch '{patch}'",
        )
    else:
        yield ok(f"{name} takes {scope.model_format}")


@check("deploy")
def deploy_rights(seen: Seen) -> Results:
    """The rights of the account that deploys, one by one."""
    namespace = seen.scope.namespace
    yield from _rights(seen, namespace, DEPLOY_RIGHTS, "penstock-deployer", "the deploy step fails (403), after the training")


@check()
def run_rights(seen: Seen) -> Results:
    """The rights of the account that runs the pipeline, in the namespace of the runs."""
    if "argoproj.io" not in seen.groups():
        raise NotSeen("Argo's workflows: Kubeflow Pipelines is not in this cluster")
    namespace = seen.scope.run_namespace
    yield from _rights(seen, namespace, RUN_RIGHTS, "penstock-runner", "the run fails at its first driver")


def _rights(seen: Seen, namespace: str, wanted: tuple[tuple[str, str, str], ...], role: str, breaks: str) -> Results:
    missing = []
    for group, resource, verb in wanted:
        allowed = seen.rights.get((namespace, verb, group, resource), Unseen("it was not asked for"))
        if isinstance(allowed, Unseen):
            raise NotSeen(f"rights of {seen.scope.account or 'this account'}: {allowed.reason}")
        if not allowed:
            missing.append((group, resource, verb))
    who = seen.scope.account or "this account"
    if not missing:
        yield ok(f"{who} has all {len(wanted)} rights in namespace {namespace}")
        return
    said = listed((f"{verb} {resource}" for _, resource, verb in missing), 6)
    yield broken(
        f"{who} may not {said} in namespace {namespace}",
        breaks,
        apply(*_role(seen.scope.account, namespace, wanted, role)),
    )


def _role(account: str, namespace: str, rights: tuple[tuple[str, str, str], ...], name: str) -> Iterator[Object]:
    verbs: dict[tuple[str, str], list[str]] = {}
    for group, resource, verb in rights:
        verbs.setdefault((group, resource), []).append(verb)
    rules = [{"apiGroups": [group], "resources": [resource], "verbs": them} for (group, resource), them in verbs.items()]
    rbac = "rbac.authorization.k8s.io"
    owner, _, short = account.rpartition(":")
    subject = {"kind": "ServiceAccount", "name": short or "ACCOUNT", "namespace": owner or namespace}
    yield {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": {"name": name, "namespace": namespace}, "rules": rules}
    yield {
        "apiVersion": f"{rbac}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{name}-{subject['name']}", "namespace": namespace},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
        "subjects": [subject],
    }


@check("deploy")
def storage_secret(seen: Seen) -> Results:
    """The S3 Secret that KServe downloads with: that it is there, has both keys, and is listed in the predictor's ServiceAccount."""
    namespace, name = seen.scope.namespace, seen.scope.predictor
    account = seen.find("predictor's account")
    if account is None:
        yield broken(f"no ServiceAccount {name} in {namespace}", "the predictor's pod is never made", _install(namespace))
        return
    if arn := at(account, "metadata", "annotations", _ROLE_ARN):
        yield ok(f"{name} takes the role {arn}")
        return
    listed = [str(it.get("name")) for it in account.get("secrets") or []]
    secrets = {name: seen.find(f"Secret {name}") for name in listed}
    ours = {name: it for name, it in secrets.items() if it and _is_for_s3(it)}  # not registries' passwords
    missing = [name for name, it in secrets.items() if it is None]
    if missing and not ours:
        yield broken(
            f"ServiceAccount {name} lists Secret {missing[0]}, which is not in namespace {namespace}",
            "the download fails without credentials",
            f"kubectl -n {namespace} create secret generic {missing[0]}" + "".join(f" --from-literal={key}=…" for key in _KEYS),
        )
    elif not ours:
        yield warning(
            f"ServiceAccount {name} lists no Secret with S3 keys",
            "unless its pods get credentials in another way, the download fails: KServe takes them only from listed Secrets",
            f"""kubectl -n {namespace} patch serviceaccount {name} --patch '{{"secrets": [{{"name": "penstock-s3"}}]}}'""",
        )
    for secret, found in ours.items():
        yield from _keys(namespace, secret, found, "the download fails (403, or no credentials)", broken)
        yield from _annotations(seen, secret, found)


@check()
def steps_secret(seen: Seen) -> Results:
    """The Secret from which steps take the object store's keys: that it has both, where it is there."""
    namespace, secret = seen.scope.run_namespace, seen.find("Secret of runs")
    if secret is None:
        yield ok(f"no Secret {STEPS_SECRET} in {namespace}: the steps use the role of their account")
        return
    breaks = "unless the steps' account has a role, every step that reaches the store fails: no credentials"
    lacking = list(_keys(namespace, STEPS_SECRET, secret, breaks, warning))
    yield from lacking or [ok(f"Secret {STEPS_SECRET} in {namespace} has both keys")]


def _keys(namespace: str, name: str, secret: Object, breaks: str, level: Callable[[str, str, str], Result]) -> Results:
    if lacking := [key for key in _KEYS if not (secret.get("data") or {}).get(key)]:
        values = ", ".join(f'"{key}": "…"' for key in lacking)
        yield level(
            f"Secret {name} in {namespace} has no {' and no '.join(lacking)}",
            breaks,
            f"kubectl -n {namespace} patch secret {name} --patch '{{\"stringData\": {{{values}}}}}'",
        )


def _is_for_s3(secret: Object) -> bool:
    return any(key.startswith(_S3) for key in at(secret, "metadata", "annotations") or {}) or any(
        key in (secret.get("data") or {}) for key in _KEYS
    )


def _annotations(seen: Seen, name: str, secret: Object) -> Results:
    namespace = seen.scope.namespace
    annotations = {
        key.removeprefix(_S3): str(it) for key, it in (at(secret, "metadata", "annotations") or {}).items() if key.startswith(_S3)
    }
    command = f"kubectl -n {namespace} annotate secret {name} --overwrite"
    endpoint, https = annotations.get("endpoint"), annotations.get("usehttps", "1")
    problems = 0
    if endpoint is not None and (wanted := _host_port(endpoint)) != endpoint:
        problems += 1
        scheme = endpoint.partition("://")[0] if "://" in endpoint else ""
        also = f" {_S3}usehttps={'1' if scheme == 'https' else '0'}" if scheme else ""
        yield broken(
            f"Secret {name}: s3-endpoint is {endpoint!r}",
            "KServe puts a scheme before it: the download cannot connect",
            f"{command} {_S3}endpoint={wanted or 'HOST:PORT'}{also}",
        )
    if https not in ("0", "1"):
        problems += 1
        yield broken(
            f"Secret {name}: s3-usehttps is {https!r}", 'KServe reads "1" as https, all else as http', f"{command} {_S3}usehttps=1"
        )
    if not annotations.get("region"):
        problems += 1
        yield warning(
            f"Secret {name} has no s3-region",
            "strict S3 servers refuse the signature, and AWS outside of us-east-1 redirects",
            f"{command} {_S3}region=us-east-1",
        )
    if endpoint and annotations.get("usevirtualbucket") == "1":
        problems += 1
        yield warning(
            f"Secret {name}: s3-usevirtualbucket with an endpoint of its own",
            "the bucket's name goes before the host, which few servers other than AWS resolve",
            f"{command} {_S3}usevirtualbucket=0",
        )
    if endpoint is None and annotations.get("verifyssl") == "0":
        problems += 1
        yield warning(
            f"Secret {name}: certificates of AWS are not checked",
            "anybody on the way can send another model",
            f"{command} {_S3}verifyssl=1",
        )
    if not problems:
        yield ok(f"Secret {name}: {endpoint or 'AWS'}, https {https}, region {annotations.get('region')}")


def _host_port(endpoint: str) -> str:
    """What the annotation should be; "" where it cannot be told."""
    bare = endpoint.strip().rpartition("://")[2].partition("/")[0].rstrip(".")
    try:
        return tidy_endpoint(f"http://{bare}", "s3-endpoint").removeprefix("http://")
    except UsageError:
        return ""


@check()
def pod_security(seen: Seen) -> Results:
    """The namespace's Pod Security level against what KServe's storage-initializer says of itself."""
    namespace = seen.find("namespace")
    level = at(namespace, "metadata", "labels", "pod-security.kubernetes.io/enforce") or "none"
    if level != "restricted":
        yield ok(f"Pod Security: {level}")
        return
    container = seen.find("storage initializer")
    context = at(container, "spec", "container", "securityContext") or {}
    good = context.get("allowPrivilegeEscalation") is False and "ALL" in (at(context, "capabilities", "drop") or [])
    if good:
        yield ok("Pod Security: restricted, and the storage-initializer passes")
        return
    wanted = {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    patch = json.dumps({"spec": {"container": {"securityContext": wanted}}})
    there_is = f"KServe's storage-initializer has {'no securityContext that passes' if container else 'no ClusterStorageContainer default'}"
    yield broken(
        f"namespace {seen.scope.namespace} enforces restricted, and {there_is}",
        "predictors never get a pod; only an event of the ReplicaSet says so",
        ("" if container else f"install KServe's cluster resources ({KSERVE_DOCS}), and then:\n")
        + f"kubectl patch clusterstoragecontainer default --type merge --patch '{patch}'",
    )


@check()
def images_pulled(seen: Seen) -> Results:
    """Images that nodes cannot pull, by the pods that wait for them."""
    found = False
    for namespace, suffix in seen.places():
        events = seen.all(f"events{suffix}")
        for pod in seen.all(f"pods{suffix}"):
            name = str(at(pod, "metadata", "name"))
            states = [*(at(pod, "status", "initContainerStatuses") or []), *(at(pod, "status", "containerStatuses") or [])]
            waiting = [it for it in states if at(it, "state", "waiting", "reason") in PULL_FAILURES]
            if waiting:
                found = True
                failed = [it for it in events if at(it, "involvedObject", "name") == name and it.get("reason") == "Failed"]
                yield _unpulled(namespace, pod, waiting[0], [str(it.get("message")) for it in failed])
    if not found:
        yield ok("no pod waits for an image")


def _unpulled(namespace: str, pod: Object, state: Object, told: list[str]) -> Result:
    waiting = at(state, "state", "waiting")
    message = " ".join((told or [str(waiting.get("message") or "")])[-1].split())[:300]
    name, account = at(pod, "metadata", "name"), at(pod, "spec", "serviceAccountName") or "default"
    patch = json.dumps({"imagePullSecrets": [{"name": "penstock-registry"}]})
    return broken(
        f"{namespace}: pod {name} waits for image {state.get('image')}: {waiting['reason']} {message}".rstrip(),
        "the pod never starts",
        "push the image, or name one that exists; from a private registry the pods need its password:\n"
        f"kubectl -n {namespace} create secret docker-registry penstock-registry "
        "--docker-server=… --docker-username=… --docker-password=…\n"
        f"kubectl -n {namespace} patch serviceaccount {account} --patch '{patch}'\n"
        f"kubectl -n {namespace} delete pod {name}",
    )
