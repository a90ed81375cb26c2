"""Traps of how Kubeflow Pipelines passes values, takes branches and loops, seen on its 2.17 backend."""

import re
from collections.abc import Iterator

from components.classifier.errors import listed
from components.lint.pipeline import Pipeline, Task
from components.lint.registry import Hit, Level, rule
from components.lint.values import at, mapping, sequence, text

_CONDITION_INPUT = re.compile(r"inputs\.parameter_values\['([^']*)'\]")
_MAX_CONSTANT = 100_000


@rule(Level.ERROR)
def oneof_over_cached_branch(pipeline: Pipeline) -> Iterator[Hit]:
    """A dsl.OneOf collects the output of a step that may be cached.

    The first run is green; the second one, in which the step is cached, fails with "No successful task found".

    Fix: task.set_caching_options(False) on every step that feeds the OneOf; the option at submit time does not help.
    """
    tasks = {(task.group, task.name): task for task in pipeline.tasks}
    for group in pipeline.groups:
        for output, _, selectors in _oneofs(pipeline, group):
            for selector in selectors:
                for task in _producers(tasks, pipeline, group, text(selector, "producerSubtask"), text(selector, "outputParameterKey")):
                    if task.cached:
                        yield Hit(task.at("cachingOptions", "enableCache"), f"task {task.name} feeds {output}, and may be cached")


def _oneofs(pipeline: Pipeline, group: str) -> Iterator[tuple[str, str, list[object]]]:
    """A group's outputs that are a OneOf: name, "parameters" or "artifacts", and what they select from."""
    outputs = mapping(pipeline.groups, group, "dag", "outputs")
    for name, output in mapping(outputs, "parameters").items():
        if selectors := sequence(output, "valueFromOneof", "parameterSelectors"):
            yield name, "parameters", selectors
    for name, output in mapping(outputs, "artifacts").items():
        if name.rpartition("-")[0].endswith("oneof") and len(sequence(output, "artifactSelectors")) > 1:
            yield name, "artifacts", sequence(output, "artifactSelectors")


def _producers(
    tasks: dict[tuple[str, str], Task], pipeline: Pipeline, group: str, name: str, output: str, depth: int = 0
) -> Iterator[Task]:
    """The steps that make an output of a task, through the groups that hand it on."""
    task = tasks.get((group, name))
    if task is None or depth > 20:
        return
    if task.executor:
        yield task
        return
    inner = text(task.spec, "componentRef", "name")
    value = mapping(pipeline.groups, inner, "dag", "outputs", "parameters", output)
    selectors = [at(value, "valueFromParameter"), *sequence(value, "valueFromOneof", "parameterSelectors")]
    for selector in selectors:
        if isinstance(selector, dict):
            yield from _producers(
                tasks, pipeline, inner, text(selector, "producerSubtask"), text(selector, "outputParameterKey"), depth + 1
            )


@rule(Level.NOTE)
def oneof_over_artifacts(pipeline: Pipeline) -> Iterator[Hit]:
    """A dsl.OneOf collects artifacts.

    Only a OneOf over strings is known to give the reading step the branch that ran, on a cluster and in a local run.

    Fix: return a string (a URI) from each branch, and collect these.
    """
    for group in pipeline.groups:
        for output, kind, _ in _oneofs(pipeline, group):
            if kind == "artifacts":
                yield Hit(
                    pipeline.at(*pipeline.group_keys(group), "dag", "outputs", "artifacts", output), f"{output} selects among artifacts"
                )


@rule(Level.WARNING)
def setting_not_an_input(pipeline: Pipeline) -> Iterator[Hit]:
    """Inside a group, a setting of a step takes its value from a run parameter that is not an input of the step.

    In a dsl.If, Else, ParallelFor or ExitHandler the step's driver was seen to fail with "parent DAG does not have input parameter".

    Fix: give the component an argument for the parameter, and pass it, even where the code does not use it.
    """
    for task in pipeline.steps:
        if task.group == "root":
            continue
        passed = {text(it, "componentInputParameter") for it in mapping(task.spec, "inputs", "parameters").values()}
        for keys, parameter in _setting_parameters(pipeline.settings(task.executor)):
            if parameter not in passed:
                plain = parameter.removeprefix("pipelinechannel--")
                yield Hit(
                    pipeline.settings_at(task.executor, *keys), f"task {task.name}: {keys[0]} comes from {plain}, which is not passed to it"
                )


def _setting_parameters(value: object, keys: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Each run parameter that a step's settings for Kubernetes name, with the keys that lead there."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key == "componentInputParameter" and isinstance(part, str):
                yield keys, part
            elif isinstance(key, str):
                yield from _setting_parameters(part, (*keys, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _setting_parameters(part, (*keys, index))


@rule(Level.ERROR)
def quote_in_condition(pipeline: Pipeline) -> Iterator[Hit]:
    """A condition compares with a text that holds a single quote.

    kfp writes the text into the condition as it is: the backend cannot read the expression, and the run fails there.

    Fix: compare with a text without quotes.
    """
    for task in pipeline.tasks:
        condition = text(task.spec, "triggerPolicy", "condition")
        if _CONDITION_INPUT.sub("", condition).replace("\\'", "").count("'") % 2:
            yield Hit(task.at("triggerPolicy", "condition"), f"condition: {condition}")


@rule(Level.WARNING)
def lone_condition_on_named_output(pipeline: Pipeline) -> Iterator[Hit]:
    """A dsl.If without an Else tests a named output.

    A local run (SubprocessRunner, DockerRunner) skips the branch whatever the value is, and says SUCCESS; a cluster runs it.

    Fix: return the value as the component's only, unnamed output, and add a dsl.Else.
    """
    for task in pipeline.tasks:
        branching = text(task.spec, "triggerPolicy", "condition")
        if not branching or "condition-branches" in task.group:
            continue
        for tested in _CONDITION_INPUT.findall(branching):
            output = mapping(task.spec, "inputs", "parameters", tested, "taskOutputParameter")
            if output and text(output, "outputParameterKey") != "Output":
                named = f"{text(output, 'producerTask')}.{text(output, 'outputParameterKey')}"
                yield Hit(task.at("triggerPolicy", "condition"), f"{task.name} tests {named}, and has no Else")
                break


_WHOLE_NUMBER = re.compile(r"(==|!=|<=|>=|<|>) -?\d+(?![\d.])")


@rule(Level.NOTE)
def integer_in_condition(pipeline: Pipeline) -> Iterator[Hit]:
    """A condition compares with a whole number.

    A local run fails there, since it holds numbers as floats; a cluster evaluates it.

    Fix: compare with a float (1.0), or with a text.
    """
    for task in pipeline.tasks:
        if _WHOLE_NUMBER.search(text(task.spec, "triggerPolicy", "condition")):
            yield Hit(task.at("triggerPolicy", "condition"), f"{task.name}: {text(task.spec, 'triggerPolicy', 'condition')}")


@rule(Level.NOTE)
def loop_over_named_output(pipeline: Pipeline) -> Iterator[Hit]:
    """A dsl.ParallelFor loops over a named output.

    A local run cannot resolve it; a cluster can.

    Fix: return the list as the component's only, unnamed output.
    """
    for task in pipeline.tasks:
        items = text(task.spec, "parameterIterator", "items", "inputParameter")
        output = text(task.spec, "inputs", "parameters", items, "taskOutputParameter", "outputParameterKey")
        if items and output and output != "Output":
            yield Hit(task.at("parameterIterator", "items"), f"{task.name} loops over the output {output}")


_TEXT_TYPES = ("", "STRING", "TASK_FINAL_STATUS")


@rule(Level.WARNING)
def optional_without_default(pipeline: Pipeline) -> Iterator[Hit]:
    """A pipeline's parameter is optional, has no default, and is not text.

    The run form asks for it all the same, an empty field is refused as a number, and a step that gets none fails with "parent DAG
    does not have input parameter".

    Fix: give it a default, or make it a str whose default "" means none.
    """
    found = [
        name
        for name, it in mapping(pipeline.spec, "root", "inputDefinitions", "parameters").items()
        if at(it, "isOptional") is True and "defaultValue" not in mapping(it) and text(it, "parameterType") not in _TEXT_TYPES
    ]
    if found:
        yield Hit(pipeline.at("root", "inputDefinitions", "parameters", found[0]), f"optional, without a default: {listed(found)}")


@rule(Level.ERROR)
def large_constant(pipeline: Pipeline) -> Iterator[Hit]:
    """A step's input is a constant of more than 100 kB.

    Inputs travel in one command-line argument: the step fails ("configmaps is forbidden", or "argument list too long"), and the
    group around it is run again.

    Fix: write the data to an artifact or to storage, and pass its address.
    """
    for task in pipeline.steps:
        for name, it in mapping(task.spec, "inputs", "parameters").items():
            size = len(str(at(it, "runtimeValue", "constant") or ""))
            if size > _MAX_CONSTANT:
                yield Hit(task.at("inputs", "parameters", name), f"task {task.name}: {name} has {size} characters")


@rule(Level.WARNING)
def minio_pipeline_root(pipeline: Pipeline) -> Iterator[Hit]:
    """The pipeline's root is a minio:// address.

    The launcher signs for a region "minio", which a strict S3 server refuses; and KServe cannot serve a model from such an address.

    Fix: an s3:// root, with providers.s3.default in the ConfigMap kfp-launcher.
    """
    root = text(pipeline.spec, "defaultPipelineRoot")
    if root.startswith("minio://"):
        yield Hit(pipeline.at("defaultPipelineRoot"), f"the root is {root}")
