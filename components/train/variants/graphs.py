"""Work on ONNX graphs: join several, scale what they give, keep them the same bytes for the same input."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper

from components.bundle.files import FAMILIARITY, INPUT_NAME, OUTPUT_NAME
from components.classifier.errors import UsageError

TINY = float(np.finfo(np.float32).tiny)
"""Probabilities below it are taken for it before their logarithm."""


def joined(models: Sequence[onnx.ModelProto], familiarity: bool) -> onnx.ModelProto:
    """Put models side by side in one graph: the same `image` for all, and the mean of what they give.

    `familiarity`: all of them have this output, and so gets the graph. Raises UsageError for models of different operator sets, which
    one graph cannot hold.
    """
    opsets = _opsets(models)
    nodes, initializers, outputs = [], [], [OUTPUT_NAME, *([FAMILIARITY] if familiarity else [])]
    functions = []
    for k, model in enumerate(models):
        apart = compose.add_prefix(model, f"member{k}_", rename_inputs=False)
        nodes += list(apart.graph.node)
        initializers += list(apart.graph.initializer)
        functions += list(apart.functions)
    for output in outputs:
        nodes.append(helper.make_node("Mean", [f"member{k}_{output}" for k in range(len(models))], [output], f"mean_{output}"))
    first = models[0].graph
    kept = [value for value in first.output if value.name in outputs]
    graph = helper.make_graph(nodes, "ensemble", [value for value in first.input if value.name == INPUT_NAME], kept, initializers)
    return helper.make_model(
        graph, opset_imports=opsets, functions=functions, ir_version=max(m.ir_version for m in models), producer_name="penstock"
    )


def _opsets(models: Sequence[onnx.ModelProto]) -> list[onnx.OperatorSetIdProto]:
    found: dict[str, int] = {}
    for model in models:
        for entry in model.opset_import:
            if found.setdefault(entry.domain, entry.version) != entry.version:
                raise UsageError(
                    f"the versions use different ONNX operator sets ({found[entry.domain]} and {entry.version}), which one graph cannot "
                    "hold; choose versions that the same release of Penstock trained"
                )
    return [helper.make_opsetid(domain, number) for domain, number in sorted(found.items())]


def scale_probabilities(model: onnx.ModelProto, temperature: float) -> None:
    """Divide the logits of a graph by a temperature: softmax(log(p) / T). 1 leaves it as it is."""
    if temperature == 1:
        return
    tail = _Tail(model.graph, OUTPUT_NAME)
    logits = tail.add("Div", tail.add("Log", tail.add("Max", tail.raw, TINY)), temperature)
    tail.end("Softmax", logits)


def scale_familiarity(model: onnx.ModelProto, limit: float) -> None:
    """Make the pictures at the distance `limit` those that just look familiar, at one half: 1 / (1 + (1 / f - 1) / limit)."""
    tail = _Tail(model.graph, FAMILIARITY)
    distance = tail.add("Sub", tail.add("Reciprocal", tail.raw), 1.0)
    tail.end("Reciprocal", tail.add("Add", tail.add("Div", distance, limit), 1.0))


class _Tail:
    """Nodes behind one of a graph's outputs, which take it over; their names are free, since the number of nodes is part of them."""

    def __init__(self, graph: onnx.GraphProto, output: str) -> None:
        self._graph, self._output = graph, output
        self.raw = f"{output}_before_{len(graph.node)}"
        for node in graph.node:
            for names in (node.input, node.output):
                for k, value in enumerate(names):
                    if value == output:
                        names[k] = self.raw

    def add(self, kind: str, value: str, constant: float | None = None) -> str:
        """Append a node that takes a value and perhaps a constant; returns the name of its result."""
        name = f"{self._output}_{kind}_{len(self._graph.node)}"
        inputs = [value]
        if constant is not None:
            self._graph.initializer.append(numpy_helper.from_array(np.array(constant, np.float32), f"{name}_by"))
            inputs.append(f"{name}_by")
        self._graph.node.append(helper.make_node(kind, inputs, [name], name))
        return name

    def end(self, kind: str, value: str) -> None:
        """Append the node that gives the output, along the last axis."""
        self._graph.node.append(helper.make_node(kind, [value], [self._output], f"{self._output}_{kind}_{len(self._graph.node)}"))


def ancestors(graph: onnx.GraphProto, output: str) -> set[str]:
    """The names of the nodes that a graph's output is computed by."""
    makers = {name: node for node in graph.node for name in node.output}
    found: set[str] = set()
    waiting = [output]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting += list(node.input)
    return found


def tidy(model: onnx.ModelProto, facts: Mapping[str, str]) -> bytes:
    """The model's bytes, the same for the same graph: only operator sets that are used, and `facts` for metadata."""
    used = {node.domain for node in model.graph.node} | {node.domain for function in model.functions for node in function.node}
    used |= {function.domain for function in model.functions} | {""}
    kept = sorted((entry.domain, entry.version) for entry in model.opset_import if entry.domain in used)
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, number) for domain, number in kept)
    del model.metadata_props[:]
    helper.set_model_props(model, dict(sorted(facts.items())))
    return bytes(model.SerializeToString(deterministic=True))
