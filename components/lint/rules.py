"""All rules, loaded from their modules."""

from collections.abc import Iterator

from components.lint import container_rules, flow_rules, graph_rules, service_rules, step_rules
from components.lint.registry import REGISTERED, Hit, Rule, Subject

MODULES = {  # the module's name -> what its rules are about
    flow_rules.__name__: "Kubeflow pipelines: values, branches and loops",
    step_rules.__name__: "Kubeflow pipelines: steps",
    service_rules.__name__: "KServe services",
    graph_rules.__name__: "KServe inference graphs",
    container_rules.__name__: "Containers and images",
}


def all_rules() -> dict[str, Rule]:
    """Every rule by its id: pipelines first, then services, then containers."""
    order = list(MODULES)
    return dict(sorted(REGISTERED.items(), key=lambda it: order.index(it[1].check.__module__)))


def hits(subject: Subject, ignored: frozenset[str]) -> Iterator[tuple[Rule, Hit]]:
    """What all rules find in one pipeline or manifest."""
    for it in REGISTERED.values():
        if it.id not in ignored and isinstance(subject, it.subjects):
            for hit in it.check(subject):
                yield it, hit
