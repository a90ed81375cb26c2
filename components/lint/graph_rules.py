"""Traps of KServe's InferenceGraph, read in its 0.20 webhook and router."""

from collections.abc import Iterator

from components.lint.manifest import KSERVE, Manifest
from components.lint.registry import Hit, Level, rule
from components.lint.values import mapping, number, sequence, text

_TARGETS = ("nodeName", "serviceName", "serviceUrl")


def _nodes(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """The nodes of an InferenceGraph: name and type of router."""
    if manifest.kind == "InferenceGraph" and manifest.group == KSERVE:
        for name, node in mapping(manifest.value, "spec", "nodes").items():
            yield name, text(node, "routerType")


@rule(Level.ERROR)
def graph_that_is_refused(manifest: Manifest) -> Iterator[Hit]:
    """An InferenceGraph has no node called root, a step without exactly one target, or a Splitter whose weights do not sum to 100.

    KServe's webhook refuses the graph: nothing is applied.

    Fix: name the first node root; one target (nodeName, serviceName or serviceUrl) for each step; weights of a Splitter sum to 100.
    """
    nodes = dict(_nodes(manifest))
    if nodes and "root" not in nodes:
        yield Hit(manifest.at("spec", "nodes"), f"nodes {', '.join(nodes)}")
    for name, router in nodes.items():
        steps = sequence(manifest.value, "spec", "nodes", name, "steps")
        for k, step in enumerate(steps):
            targets = [target for target in _TARGETS if text(step, target)]
            if len(targets) != 1:
                yield Hit(manifest.at("spec", "nodes", name, "steps", k), f"a step with {' and '.join(targets) or 'no target'}")
        weights = [number(step, "weight") for step in steps]
        if router == "Splitter" and (None in weights or sum(weight or 0 for weight in weights) != 100):
            yield Hit(manifest.at("spec", "nodes", name, "steps"), f"weights {', '.join(map(str, weights))}")


@rule(Level.ERROR)
def graph_node_that_is_not_there(manifest: Manifest) -> Iterator[Hit]:
    """A step of an InferenceGraph leads to a node that the graph does not have.

    It is accepted; each request that comes this way is answered with status 500.

    Fix: the name of a node of this graph, or a serviceName.
    """
    nodes = dict(_nodes(manifest))
    for name in nodes:
        for k, step in enumerate(sequence(manifest.value, "spec", "nodes", name, "steps")):
            target = text(step, "nodeName")
            if target and target not in nodes:
                yield Hit(manifest.at("spec", "nodes", name, "steps", k, "nodeName"), f"node {target} of {', '.join(nodes)}")


@rule(Level.WARNING)
def soft_ensemble_member(manifest: Manifest) -> Iterator[Hit]:
    """A member of an Ensemble node is not a hard dependency.

    When it fails, the graph answers with status 200, and the member's error stands where its predictions are expected.

    Fix: dependency: Hard.
    """
    for name, router in _nodes(manifest):
        for k, step in enumerate(sequence(manifest.value, "spec", "nodes", name, "steps")):
            if router == "Ensemble" and text(step, "dependency") != "Hard":
                yield Hit(manifest.at("spec", "nodes", name, "steps", k), f"member {text(step, 'name') or k} of node {name}")


@rule(Level.ERROR)
def switch_step_without_condition(manifest: Manifest) -> Iterator[Hit]:
    """A step of a Switch node has no condition.

    An empty condition is never met: requests that no other step takes are answered with status 404.

    Fix: a condition that always holds, such as instances, for the last step.
    """
    for name, router in _nodes(manifest):
        for k, step in enumerate(sequence(manifest.value, "spec", "nodes", name, "steps")):
            if router == "Switch" and not text(step, "condition"):
                yield Hit(manifest.at("spec", "nodes", name, "steps", k), f"step {text(step, 'name') or k} of node {name}")
