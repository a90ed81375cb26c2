"""What KServe's admission webhook refuses although the schema allows it, so far as our manifests can meet it."""

import re
from typing import Any

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?")
_FRAMEWORKS = {"sklearn", "xgboost", "tensorflow", "pytorch", "triton", "onnx", "huggingface", "pmml", "lightgbm", "paddle"}
_MODES = {"Standard", "Knative", "RawDeployment", "Serverless"}


def refusals(service: dict[str, Any]) -> list[str]:
    """Why an InferenceService would be refused, one reason each."""
    annotations, predictor = service["metadata"].get("annotations", {}), service["spec"]["predictor"]
    mode = annotations.get("serving.kserve.io/deploymentMode")
    model = predictor.get("model", {})
    least, most = predictor.get("minReplicas", 1), predictor.get("maxReplicas", 0)
    checks = {
        "name": _NAME.fullmatch(service["metadata"]["name"]),
        "deploymentMode": mode in _MODES,
        "exactly one of model and containers": len(({"model", "containers"} | _FRAMEWORKS) & predictor.keys()) == 1,
        "model.name": "name" not in model,
        "replicas": least >= 0 and most >= 0 and (most == 0 or least <= most),
        "percent": 0 <= predictor.get("canaryTrafficPercent", 0) <= 100,
        "deploymentStrategy only in Standard": "deploymentStrategy" not in predictor or mode in {"Standard", "RawDeployment"},
        "env PYTHONPATH": all(it["name"] != "PYTHONPATH" for it in model.get("env", [])),
        "protocol": model.get("protocolVersion", "v2") in {"v1", "v2", "grpc-v1", "grpc-v2"},
        "quantities": all(map(_is_quantity, _amounts(model.get("resources", {})))),
        "storageUri": re.match(r"(s3|gs|pvc|oci|hf|https?)://[^/]+", model.get("storageUri", "s3://-")),
    }
    return [name for name, fine in checks.items() if not fine] + _scaling(
        annotations, predictor, standard=mode in {"Standard", "RawDeployment"}
    )


def runtime_refusals(runtime: dict[str, Any]) -> list[str]:
    container = runtime["spec"]["containers"][0]
    checks = {
        "container's name": container["name"] == "kserve-container",
        "protocols": set(runtime["spec"]["protocolVersions"]) <= {"v1", "v2", "grpc-v1", "grpc-v2"},
        "env PYTHONPATH": all(it["name"] != "PYTHONPATH" for it in container.get("env", [])),
        "quantities": all(map(_is_quantity, _amounts(container["resources"]))),
        "formats twice": len({(it["name"], it.get("version")) for it in runtime["spec"]["supportedModelFormats"]})
        == len(runtime["spec"]["supportedModelFormats"]),
    }
    return [name for name, fine in checks.items() if not fine]


def knative_refusals(pod: dict[str, Any]) -> list[str]:
    """What Knative's own webhook, at its defaults, refuses in the pod that KServe asks it for."""
    wide = {"securityContext", "terminationGracePeriodSeconds", "affinity", "nodeSelector", "tolerations", "topologySpreadConstraints"}
    found = sorted(wide & pod.keys()) + [key for it in pod["containers"] for key in ("lifecycle", "startupProbe") if key in it]
    for it in pod["containers"]:
        ports = {port["containerPort"] for port in it.get("ports", [])}
        if it.get("livenessProbe", {}).get("httpGet", {}).get("port") not in {None, *ports}:
            found.append("livenessProbe's port")
    return found


def _scaling(annotations: dict[str, str], predictor: dict[str, Any], *, standard: bool) -> list[str]:
    kind = annotations.get("serving.kserve.io/autoscalerClass")
    metric, target = predictor.get("scaleMetric"), predictor.get("scaleTarget")
    if kind not in {None, "hpa", "keda", "external", "none"}:
        return ["autoscalerClass"]
    if not standard:
        return ["scaleMetric"] * (metric not in {None, "concurrency", "rps"})
    if kind == "keda":
        metrics = predictor.get("autoScaling", {}).get("metrics", [])
        external = [it["external"] for it in metrics if it["type"] == "External"]
        wrong = any(not it["metric"].get("query") or "value" not in it["target"] for it in external)
        return ["scaleMetric with keda"] * (metric is not None) + ["keda metric"] * wrong
    wrong = metric not in {None, "cpu", "memory"} or (target is not None and not 1 <= target <= 100)
    return ["hpa"] * (kind == "hpa" and wrong)


def _amounts(resources: dict[str, Any]) -> list[str]:
    return [str(it) for part in resources.values() if isinstance(part, dict) for it in part.values()]


def _is_quantity(amount: str) -> bool:
    return bool(_QUANTITY.fullmatch(amount))
