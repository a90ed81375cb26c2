"""Checks of what an account that may deploy could also do."""

from components.doctor.registry import Results, broken, check, ok, warning
from components.doctor.seen import Seen
from components.lint.values import at

_LABEL = "penstock/deployer-policy"
_DEFAULTS = {"store": "", "runtime": "penstock-onnx-v1", "model-format": "penstock", "service-account": "penstock-predictor"}
"""Annotations of the namespace, below penstock/, and what the policy takes where one is missing."""


@check()
def deployer_policy(seen: Seen) -> Results:
    """The admission policy, without which the right to deploy is the right to run any pod; and that it lets through what is deployed."""
    scope, namespace = seen.scope, seen.scope.namespace
    if seen.rights.get((namespace, "create", "", "pods")) is True:
        yield ok(f"{scope.account or 'this account'} may make any pod in {namespace} anyway: no admission policy limits it")
        return
    policy, binding = seen.find("admission policy"), seen.find("admission policy's binding")
    metadata = at(seen.find("namespace"), "metadata")
    denies = policy is not None and "Deny" in (at(binding, "spec", "validationActions") or [])
    if not denies or at(metadata, "labels", _LABEL) != "enforced":
        policies = "no ValidatingAdmissionPolicy penstock-deployer with a binding that denies (Kubernetes 1.30 and later have them)"
        yield warning(
            f"namespace {namespace} has no label {_LABEL}=enforced" if denies else f"there is {policies}",
            f"whoever may deploy to {namespace} can run any image there, with every Secret and ServiceAccount of the namespace",
            f"kubectl label namespace {namespace} {_LABEL}=enforced"
            if denies
            else "kubectl apply -f manifests/components/deployer-policy/policy.yaml",
        )
        return
    notes = at(metadata, "annotations") or {}
    lets = {key: str(notes.get(f"penstock/{key}", default)) for key, default in _DEFAULTS.items()}
    deployed = {"runtime": scope.runtime, "model-format": scope.model_format, "service-account": scope.predictor}
    wrong = {key: value for key, value in deployed.items() if lets[key] != value}
    if not lets["store"] or (seen.store and seen.store.models and not seen.store.models.startswith(f"{lets['store']}/models/")):
        wrong["store"] = seen.store.url if seen.store else "s3://…"
    if wrong:
        yield broken(
            f"the annotations of namespace {namespace} let through "
            + ", ".join(f"{key} {lets[key] or '(none)'}" for key in wrong)
            + " only",
            "what is deployed is refused: " + ", ".join(f"{key} {value}" for key, value in wrong.items()),
            f"kubectl annotate namespace {namespace} --overwrite" + "".join(f" penstock/{key}={value}" for key, value in wrong.items()),
        )
    else:
        yield ok(f"accounts that may not make pods in {namespace} can deploy models of {lets['store']} only")
