"""Checks of what an administrator installs once for a cluster: Kubernetes, KServe, Kubeflow, nodes, plugins."""

import json
import re

import yaml

from components.doctor.registry import Results, broken, check, ok, warning
from components.doctor.seen import NotSeen, Seen
from components.lint.values import at
from components.settings.serving import canonical

_CLOCK_WARNING, _CLOCK_BROKEN = 60, 15 * 60  # S3 servers refuse requests that are 15 minutes off
_ENFORCING_GROUPS = ("crd.projectcalico.org", "projectcalico.org", "cilium.io", "crd.antrea.io", "k8s.ovn.org", "networking.antrea.io")
_ENFORCING_AGENTS = re.compile(r"calico|canal|cilium|antrea|weave|kube-router|ovn|azure-npm|aws-node|anetd|netd|kindnet")
KSERVE_DOCS = "https://kserve.github.io/website/docs/admin-guide/overview"


@check()
def kubernetes_version(seen: Seen) -> Results:
    """The Kubernetes version: the predictor's pause before it ends (preStop sleep) needs 1.30."""
    version = seen.find("Kubernetes version") or {}
    numbers = [int("".join(filter(str.isdigit, str(version.get(key)))) or 0) for key in ("major", "minor")]
    saw = f"Kubernetes {version.get('gitVersion')}"
    if tuple(numbers) < (1, 30):
        yield warning(saw, "the ServingRuntime's preStop sleep is refused, or ignored", "upgrade to Kubernetes 1.30 or later")
    else:
        yield ok(saw)


@check("deploy")
def kserve_installed(seen: Seen) -> Results:
    """KServe's kinds, its controller and its version."""
    if "serving.kserve.io" not in seen.groups() or not seen.find("KServe kinds"):
        yield broken("no InferenceServices of serving.kserve.io/v1beta1", "nothing can be deployed", f"install KServe: {KSERVE_DOCS}")
        return
    kinds = {str(it.get("kind")) for it in (seen.find("KServe kinds") or {}).get("resources") or []}
    if "InferenceService" not in kinds:
        yield broken("KServe's API without InferenceServices", "nothing can be deployed", f"install KServe's CRDs: {KSERVE_DOCS}")
        return
    controller = seen.find("KServe controller")
    if controller is None:
        yield warning(
            "InferenceServices, but no controller in namespace kserve",
            "if it runs nowhere else either, a service is accepted and never gets a pod",
            f"kubectl get deployments -A -l control-plane=kserve-controller-manager; without any, install it: {KSERVE_DOCS}",
        )
        return
    images = [str(it.get("image")) for it in at(controller, "spec", "template", "spec", "containers") or []]
    ready = at(controller, "status", "readyReplicas") or 0
    saw = f"KServe {images[0].rpartition(':')[2] if images else ''}, {ready} of its controllers ready"
    if not ready:
        command = "kubectl -n kserve describe pods -l control-plane=kserve-controller-manager"
        yield broken(saw, "a service is refused by the webhook, or never gets a pod", command)
    else:
        yield ok(saw)


@check("deploy")
def deployment_mode(seen: Seen) -> Results:
    """The deployment mode that is asked for, what the cluster can do, and the mode of a service that is there."""
    wanted = canonical(seen.scope.mode)
    if wanted == "Knative" and "serving.knative.dev" not in seen.groups():
        yield broken(
            "mode Knative, and no Knative in the cluster",
            "the service never gets a pod",
            "install Knative Serving, or set serving.mode=Standard",
        )
        return
    service = seen.find("InferenceService")
    now = at(service, "metadata", "annotations", "serving.kserve.io/deploymentMode") or at(service, "status", "deploymentMode") or ""
    if now and canonical(now) != wanted:
        yield broken(
            f"{seen.scope.service} runs in mode {now}, {wanted} is asked for",
            "the webhook refuses to change a service's mode",
            f"set serving.mode={now}, or serving.service to another name",
        )
    else:
        yield ok(f"mode {wanted}{f', and {seen.scope.service} is in it' if now else ''}")


@check()
def default_deployment_mode(seen: Seen) -> Results:
    """The mode that KServe gives to services that do not say theirs."""
    config = seen.find("KServe configuration")
    try:
        mode = json.loads(str(at(config, "data", "deploy") or "{}")).get("defaultDeploymentMode", "")
    except ValueError:
        mode = ""
    needs = mode in ("Knative", "Serverless") and "serving.knative.dev" not in seen.groups()
    if needs:
        yield warning(
            f"KServe's default mode is {mode}, and there is no Knative",
            "services that do not say their mode (others' than Penstock's) never get a pod",
            "set defaultDeploymentMode to Standard in the ConfigMap inferenceservice-config of namespace kserve",
        )
    else:
        yield ok(f"KServe's default mode is {mode}" if mode else "KServe's default mode is not set")


@check()
def kubeflow_version(seen: Seen) -> Results:
    """Kubeflow Pipelines: its version, by its server's answer or its Deployment."""
    if isinstance(seen.kubeflow, dict):
        if problem := seen.kubeflow.get("problem"):
            yield broken(str(problem), "no run can be submitted", "check the address, a port-forward, and the token (KFP_TOKEN)")
        else:
            yield ok(f"Kubeflow Pipelines {seen.kubeflow.get('tag_name') or 'answers'}")
        return
    server = seen.find("Kubeflow server of runs") or seen.find("Kubeflow server")
    if server is None:
        yield warning(
            f"no Kubeflow Pipelines in namespace {' or '.join(dict.fromkeys(('kubeflow', seen.scope.run_namespace)))}",
            "no run can be submitted there",
            "name its address by --host, or its namespace by --run-namespace",
        )
        return
    image = str(at(server, "spec", "template", "spec", "containers", 0, "image"))
    yield ok(f"Kubeflow Pipelines {image.rpartition(':')[2]}, {at(server, 'status', 'readyReplicas') or 0} servers ready")


@check()
def argo_retries(seen: Seen) -> Results:
    """What Argo's defaults make of the steps' retries."""
    config = seen.find("Argo configuration of runs") or seen.find("Argo configuration")
    try:
        defaults = yaml.safe_load(str(at(config, "data", "workflowDefaults") or "")) or {}
    except yaml.YAMLError:
        defaults = {}
    policy = at(defaults, "spec", "templateDefaults", "retryStrategy", "retryPolicy") or ""
    if policy != "OnError":
        yield ok(f"Argo's default retryPolicy is {policy or 'not set'}")
        return
    defaults["spec"]["templateDefaults"]["retryStrategy"]["retryPolicy"] = "Always"
    patch = json.dumps({"data": {"workflowDefaults": yaml.safe_dump(defaults)}})
    yield warning(
        "Argo's default retryPolicy is OnError",
        "a step that exits with an error or runs out of memory is not tried again, whatever set_retry says; a lost pod is",
        f"kubectl -n {at(config, 'metadata', 'namespace')} patch configmap workflow-controller-configmap --type merge --patch '{patch}'",
    )


@check()
def pipeline_root(seen: Seen) -> Results:
    """Where Kubeflow keeps artifacts."""
    root = str(at(seen.find("Kubeflow launcher"), "data", "defaultPipelineRoot") or "")
    if root.startswith("minio://"):
        bucket = root.removeprefix("minio://")
        patch = json.dumps({"data": {"defaultPipelineRoot": f"s3://{bucket}"}})
        yield warning(
            f"the pipeline root is {root}",
            'the launcher signs for a region "minio", which a strict S3 server refuses: every step fails at its first upload',
            f"kubectl -n {seen.scope.run_namespace} patch configmap kfp-launcher --type merge --patch '{patch}'\n"
            "and set providers.s3.default there (endpoint, region, credentials)",
        )
    else:
        yield ok(f"the pipeline root is {root}" if root else "the pipeline root is Kubeflow's own")


@check()
def autoscaler_without_metrics(seen: Seen) -> Results:
    """Autoscalers need a metrics server."""
    scope = seen.scope
    scalers = [str(at(it, "metadata", "name")) for it in seen.all("HorizontalPodAutoscalers")]
    if scalers and "metrics.k8s.io" not in seen.groups():
        yield warning(
            f"{', '.join(scalers)}: an autoscaler, and no metrics server",
            "the number of pods never changes, and events fill with FailedGetResourceMetric",
            "install metrics-server, or, where no autoscaler is wanted:\n"
            f"kubectl -n {scope.namespace} annotate inferenceservice {scope.service} --overwrite serving.kserve.io/autoscalerClass=none",
        )
    else:
        yield ok(f"{len(scalers)} autoscalers" if scalers else "no autoscaler")


@check()
def network_policies_enforced(seen: Seen) -> Results:
    """NetworkPolicies do nothing without a plugin that enforces them."""
    policies = [str(at(it, "metadata", "name")) for it in seen.all("NetworkPolicies")]
    if not policies:
        yield ok("no NetworkPolicy")
        return
    agents = [str(at(it, "metadata", "name")) for it in seen.all("system agents")]
    found = [it for it in _ENFORCING_GROUPS if it in seen.groups()] + [it for it in agents if _ENFORCING_AGENTS.search(it)]
    if found:
        yield ok(f"{len(policies)} NetworkPolicies, enforced by {found[0]}")
    else:
        yield warning(
            f"NetworkPolicies ({', '.join(policies)}), and no plugin is seen that enforces them",
            "everybody in the cluster can call the predictor",
            "install a network plugin that enforces them, such as Calico or Cilium",
        )


@check()
def clocks(seen: Seen) -> Results:
    """Clocks: an S3 server refuses signatures that are 15 minutes off."""
    known = {"the API server": seen.clock_seconds, "the store": seen.store.clock_seconds if seen.store else None}
    if all(it is None for it in known.values()):
        raise NotSeen("no server told its time")
    for whose, skew in known.items():
        if skew is None:
            continue
        saw = f"the clock of {whose} is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'} of this machine's"
        if abs(skew) >= _CLOCK_WARNING:
            level = broken if abs(skew) >= _CLOCK_BROKEN else warning
            yield level(
                saw,
                "S3 answers 403 (RequestTimeTooSkewed) from 15 minutes on; tokens fail",
                "timedatectl set-ntp true, on the machine that is off",
            )
        else:
            yield ok(saw)
