"""Checks of what nodes, quotas and limits leave for the steps and the predictor."""

import json
from collections.abc import Iterator

from components.classifier.errors import listed
from components.doctor.registry import Results, broken, check, ok, warning
from components.doctor.seen import Object, Seen, apply
from components.lint.values import at
from components.settings.base import amount


def ready_nodes(seen: Seen) -> list[Object]:
    """The nodes that take new pods. Raises NotSeen."""
    return [
        node
        for node in seen.all("nodes")
        if not at(node, "spec", "unschedulable")
        and any(it.get("type") == "Ready" and it.get("status") == "True" for it in at(node, "status", "conditions") or [])
    ]


def free(seen: Seen) -> Iterator[tuple[str, dict[str, float]]]:
    """Per ready node without taints that keep pods away: its name, and what no pod has asked for. Raises NotSeen."""
    asked: dict[str, dict[str, float]] = {}
    for pod in seen.all("all pods"):
        if at(pod, "status", "phase") not in ("Succeeded", "Failed"):
            total = asked.setdefault(str(at(pod, "spec", "nodeName") or ""), {"pods": 0})
            total["pods"] += 1
            for container in at(pod, "spec", "containers") or []:
                for name, quantity in (at(container, "resources", "requests") or {}).items():
                    total[name] = total.get(name, 0) + amount(quantity)
    for node in ready_nodes(seen):
        taints = {it.get("key") for it in at(node, "spec", "taints") or [] if it.get("effect") != "PreferNoSchedule"}
        if taints <= {"nvidia.com/gpu"}:
            name = str(at(node, "metadata", "name"))
            left = {key: amount(it) - asked.get(name, {}).get(key, 0) for key, it in (at(node, "status", "allocatable") or {}).items()}
            yield name, left


@check()
def room_for_second_pod(seen: Seen) -> Results:
    """Room for a new predictor beside the old one: a rollout starts the new pod before the old one goes."""
    runtime = seen.find("ServingRuntime") or seen.find("ClusterServingRuntime")
    resources = at(runtime, "spec", "containers", 0, "resources") or {}
    wanted = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    if not ready_nodes(seen):
        yield broken("no node is ready", "every pod stays Pending", "kubectl get nodes; kubectl describe nodes")
        return
    nodes = dict(free(seen))
    fits = [
        name
        for name, left in nodes.items()
        if left.get("pods", 1) >= 1 and all(left.get(key, 0) >= amount(it) for key, it in wanted.items())
    ]
    said = ", ".join(f"{key} {it}" for key, it in sorted(wanted.items())) or "nothing"
    if fits:
        yield ok(f"a new predictor asks for {said}; {len(fits)} of {len(nodes)} nodes have room")
    else:
        yield broken(
            f"a new predictor asks for {said}, and {f'none of {len(nodes)} nodes has that free' if nodes else 'every node is tainted'}",
            "the new pod stays Pending, and the rollout is undone at its time limit",
            "add a node, lower the ServingRuntime's requests, or scale something down: kubectl describe nodes | grep -A8 Allocated",
        )


@check()
def gpu_nodes(seen: Seen) -> Results:
    """Nodes with GPUs, and the taints that training does not tolerate."""
    nodes = [
        (node, key)
        for node in ready_nodes(seen)
        for key, it in (at(node, "status", "allocatable") or {}).items()
        if key.endswith("/gpu") and amount(it)
    ]
    if not nodes:
        yield ok("no node has a GPU; a run with gpus=1 would wait until its timeout")
        return
    for node, key in nodes:
        name = str(at(node, "metadata", "name"))
        strange = [
            it
            for it in at(node, "spec", "taints") or []
            if it.get("key") != "nvidia.com/gpu" and it.get("effect") in ("NoSchedule", "NoExecute")
        ]
        for taint in strange:
            written = f"{taint.get('key')}{'=' + taint['value'] if taint.get('value') else ''}:{taint.get('effect')}"
            yield warning(
                f"node {name} has {key}, and the taint {written}",
                "training with gpus=1 stays Pending: it tolerates nvidia.com/gpu only",
                f"kubectl taint nodes {name} {written}-",
            )
        if not strange:
            yield ok(f"node {name} has {at(node, 'status', 'allocatable', key)} {key}")


def _demands(seen: Seen, namespace: str) -> Iterator[tuple[str, Object]]:
    """What will run in a namespace: name, and requests and limits."""
    if namespace == seen.scope.namespace:
        runtime = seen.find("ServingRuntime") or seen.find("ClusterServingRuntime")
        if runtime:
            yield "the predictor", at(runtime, "spec", "containers", 0, "resources") or {}
    if namespace == seen.scope.run_namespace:
        yield from ((f"step {name}", resources) for name, resources in seen.scope.steps.items())


@check()
def resource_quota(seen: Seen) -> Results:
    """ResourceQuotas against the requests and limits of every step and of the predictor."""
    for namespace, suffix in seen.places():
        quotas = seen.all(f"ResourceQuotas{suffix}")
        ranges = seen.all(f"LimitRanges{suffix}")
        found = [it for quota in quotas for it in _against_quota(quota, list(_demands(seen, namespace)), ranges, namespace)]
        yield from found
        if not found:
            yield ok(f"{namespace}: {len(quotas)} ResourceQuotas leave room" if quotas else f"{namespace}: no ResourceQuota")


def _against_quota(quota: Object, demands: list[tuple[str, Object]], ranges: list[Object], namespace: str) -> Results:
    name = at(quota, "metadata", "name")
    hard = at(quota, "status", "hard") or at(quota, "spec", "hard") or {}
    used = at(quota, "status", "used") or {}
    for key, limit in hard.items():
        if key in ("pods", "count/pods") and amount(limit) - amount(used.get(key)) < 2:
            patch = json.dumps({"spec": {"hard": {key: str(int(amount(used.get(key))) + 4)}}})
            yield broken(
                f"{namespace}: ResourceQuota {name} leaves {amount(limit) - amount(used.get(key)):g} pods",
                "a step needs its driver's pod and its own, a rollout a second predictor",
                f"kubectl -n {namespace} patch resourcequota {name} --type merge --patch '{patch}'",
            )
        part, _, resource = key.partition(".") if key.startswith(("requests.", "limits.")) else ("requests", "", key)
        if resource not in ("cpu", "memory"):
            continue
        without = [
            who
            for who, it in demands
            if not (it.get(part) or {}).get(resource) and not (part == "requests" and (it.get("limits") or {}).get(resource))
        ]
        if without and not _has_default(ranges, part, resource):
            default = "default" if part == "limits" else "defaultRequest"
            least = "1" if resource == "cpu" else "1Gi"
            enough = max((least, *(value for _, it in demands if (value := (it.get("requests") or {}).get(resource)))), key=amount)
            yield broken(
                f"{namespace}: ResourceQuota {name} counts {key}, and {listed(without)} have none",
                "their pods are refused (must specify …); the run waits for ever",
                apply(
                    {
                        "apiVersion": "v1",
                        "kind": "LimitRange",
                        "metadata": {"name": f"penstock-{part}-{resource}", "namespace": namespace},
                        "spec": {"limits": [{"type": "Container", default: {resource: enough}}]},
                    }
                ),
            )
        left = amount(limit) - amount(used.get(key))
        large = [
            (who, it[part][resource]) for who, it in demands if (it.get(part) or {}).get(resource) and amount(it[part][resource]) > left
        ]
        if large:
            needed = max(amount(it) for _, it in large) + amount(used.get(key))
            written = f"{needed / 1024**2:.0f}Mi" if resource == "memory" else f"{needed * 1000:.0f}m"
            patch = json.dumps({"spec": {"hard": {key: written}}})
            yield broken(
                f"{namespace}: ResourceQuota {name} leaves {key} {_human(left, resource)}; too much for {_with_amounts(large)}",
                "their pods are refused (exceeded quota)",
                f"kubectl -n {namespace} patch resourcequota {name} --type merge --patch '{patch}'",
            )


def _has_default(ranges: list[Object], part: str, resource: str) -> bool:
    keys = ("default",) if part == "limits" else ("defaultRequest", "default")
    return any(
        at(limit, key, resource)
        for it in ranges
        for limit in at(it, "spec", "limits") or []
        if limit.get("type") == "Container"
        for key in keys
    )


def _human(value: float, resource: str) -> str:
    return f"{value / 1024**2:.0f}Mi" if resource == "memory" else f"{value:g}"


def _with_amounts(asked: list[tuple[str, str]]) -> str:
    return listed([f"{who} ({it})" for who, it in dict(asked).items()])


@check()
def limit_range(seen: Seen) -> Results:
    """LimitRanges against the requests and limits of every step and of the predictor."""
    for namespace, suffix in seen.places():
        ranges = seen.all(f"LimitRanges{suffix}")
        found = [it for limits in ranges for it in _against_range(limits, list(_demands(seen, namespace)), namespace)]
        yield from found
        if not found:
            yield ok(f"{namespace}: {len(ranges)} LimitRanges fit" if ranges else f"{namespace}: no LimitRange")


def _against_range(limits: Object, demands: list[tuple[str, Object]], namespace: str) -> Results:
    name = at(limits, "metadata", "name")
    for index, limit in enumerate(at(limits, "spec", "limits") or []):
        if limit.get("type") not in ("Container", "Pod"):
            continue
        for bound, quantities, worse in (("max", limit.get("max") or {}, 1), ("min", limit.get("min") or {}, -1)):
            for resource, quantity in quantities.items():
                asked = [
                    (who, it)
                    for who, resources in demands
                    for part in ("requests", "limits")
                    if (it := (resources.get(part) or {}).get(resource)) and worse * (amount(it) - amount(quantity)) > 0
                ]
                if asked:
                    right = (max if worse > 0 else min)((it for _, it in asked), key=amount)
                    patch = json.dumps([{"op": "replace", "path": f"/spec/limits/{index}/{bound}/{resource}", "value": right}])
                    yield broken(
                        f"{namespace}: LimitRange {name} has {bound} {resource} {quantity}; that refuses {_with_amounts(asked)}",
                        "their pods are refused",
                        f"kubectl -n {namespace} patch limitrange {name} --type json --patch '{patch}'",
                    )
