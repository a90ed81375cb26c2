"""Checks a run's parameters with the models that its steps read them by, and asks the store whether it can be written to."""

import importlib.util
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from components.bundle.decision import check_strategy
from components.bundle.environment import deciding_environment
from components.classifier.errors import UsageError
from components.registry import Registry
from components.registry.parents import Chosen, choose
from components.registry.weights import find_weights
from components.settings.base import check_model_name
from components.settings.ingest import IngestSettings, check_source
from components.settings.resources import Resources, check_batches
from components.settings.scoring import ScoringSettings, check_engine, check_pods, check_shards
from components.settings.search import SearchSettings, plan_trials, settings_of_trial
from components.settings.serving import KServeSettings, check_target
from components.settings.training import TrainingSettings
from components.settings.variant import VariantSettings
from components.storage import open_store

OWN_ARCHITECTURES = {"compact_cnn", "small_cnn"}
"""Those that are good names without a look into torchvision, whose import takes seconds."""


def check_training(parameters: Mapping[str, Any], here: bool = False) -> Iterator[str]:
    """Check the parameters of a training run; yields one line per check that passed.

    `here`: the run's steps will use this machine, so that a GPU which is asked for must be in it. Raises what the steps
    would raise, in seconds instead of after hours: UsageError, PolicyError, TrainingError, StoreError, RolloutError.
    """
    yield f"name: {check_model_name(parameters['name'])}"
    yield _check_ingest(parameters)
    yield _check_train(TrainingSettings.of_run(parameters), parameters["store"], here)
    yield from _check_nodes(parameters, here)
    yield from _check_after_training(parameters, here)


def check_search(parameters: Mapping[str, Any], here: bool = False) -> Iterator[str]:
    """Check the parameters of a search, and with them every trial's; yields one line per check that passed.

    `here` is as for a training. Raises what the steps would raise: UsageError, PolicyError, TrainingError, StoreError, RolloutError.
    """
    yield f"name: {check_model_name(parameters['name'])}"
    yield _check_ingest(parameters)
    if Resources.read(parameters["resources"]).nodes > 1:
        raise UsageError("a search trains its trials in pods of one node each; leave nodes out of resources")
    search = SearchSettings.read(parameters["search"])
    trials = plan_trials(search, parameters["training"], parameters)
    each = [settings_of_trial(parameters["training"], parameters, trial.settings) for trial in trials]
    for settings in {(it.architecture, it.pretrained, it.weights, it.width, it.dropout): it for it in each}.values():
        _check_train(settings, parameters["store"], here)
    yield f"search: {len(trials)} trials of {', '.join(search.space)}, {trials[0].until} epochs in the first rung"
    yield from _check_after_training(parameters, here)


def check_scoring(parameters: Mapping[str, Any], here: bool = False) -> Iterator[str]:
    """Check the parameters of a scoring run; yields one line per check that passed. Raises UsageError and PolicyError."""
    settings = ScoringSettings.in_environment(parameters["scoring"], parameters["environment"])
    check_shards(int(parameters["shards"]))
    gpus = parameters["gpus"] not in {"", "0"}
    if here and settings.ray_nodes:
        raise UsageError(f"ray_nodes={settings.ray_nodes} needs a cluster with KubeRay, and this run is local; leave ray_nodes out")
    if here:
        check_engine(settings.engine)
    check_pods(settings, *(parameters[name] for name in ("store", "input", "output", "gpus")))
    on_ray = settings.engine == "ray"  # then the GPUs are those of Ray's cluster
    if here and not on_ray and (settings.device == "cuda" or (settings.device == "auto" and gpus)):
        from components.bundle.model import require_device  # imports onnxruntime

        require_device("cuda")
    elif settings.device == "cuda" and not gpus and not on_ray:
        raise UsageError("device=cuda needs a GPU in the scoring step's pod; set gpus=1")
    Resources.read({name: parameters[name] for name in ("gpu_resource", "node_selector")})
    yield f"scoring: review below {settings.review_threshold:g}"


def check_deployment(parameters: Mapping[str, Any], here: bool = False) -> Iterator[str]:
    """Check the parameters of a deployment; yields one line per check that passed.

    Raises UsageError, PolicyError and RolloutError.
    """
    deciding_environment(parameters["environment"])
    check_target(*(parameters[name] for name in ("target", "store", "name", "serving", "namespace")))
    yield f"target: {parameters['target']}"
    yield from _check_cluster(parameters, here)


def check_approval(parameters: Mapping[str, Any], here: bool = False) -> Iterator[str]:
    """Check the parameters of an approval; yields one line per check that passed. Raises UsageError and PolicyError."""
    environment = deciding_environment(parameters["environment"])
    if environment.deployment.approval != "required":
        raise UsageError(f"environment {environment.name} asks for no approval")
    yield f"environment: {environment.name}"


def check_variant(parameters: Mapping[str, Any], here: bool = False) -> Iterator[str]:
    """Check the parameters of a variant; yields one line per check that passed.

    Raises what `choose` raises, PolicyError, StoreError and RolloutError.
    """
    yield f"name: {check_model_name(parameters['name'])}"
    yield _check_decision(parameters)
    chosen = parents_of(parameters)
    yield f"variant: {parameters['kind']} of {', '.join(chosen.versions)}, calibrated and evaluated with {chosen.source}"
    yield from _check_cluster(parameters, here)
    yield _check_store(parameters["store"])


def tell(checked: Iterator[str], parameters: Mapping[str, Any]) -> None:
    """Print what was checked, which integrations lack their extra, and what is to be known of the service; raises what the checks raise."""
    from components.doctor.before import check_service
    from components.integrations.observe import missing

    print(*checked, *missing(), sep="\n")
    if said := check_service(parameters):
        print(said)


def parents_of(parameters: Mapping[str, Any]) -> Chosen:
    """The versions that a variant is made of, and their dataset; raises what `choose` raises."""
    settings = VariantSettings.read(parameters["variant"], kind=parameters["kind"], versions=parameters["versions"])
    return choose(Registry(open_store(parameters["store"]), parameters["name"]), settings)


def _check_after_training(parameters: Mapping[str, Any], here: bool) -> Iterator[str]:
    yield _check_decision(parameters)
    yield from _check_cluster(parameters, here)
    Resources.read(parameters["resources"])
    yield _check_store(parameters["store"])


CHECKS: dict[str, Callable[[Mapping[str, Any], bool], Iterator[str]]] = {
    "training": check_training,
    "retraining": check_training,
    "search": check_search,
    "scoring": check_scoring,
    "deployment": check_deployment,
    "approval": check_approval,
    "variant": check_variant,
}
"""The checks of each pipeline, by the name that the command line uses."""


def _check_ingest(given: Mapping[str, Any]) -> str:
    settings = IngestSettings.read(given["ingest"])
    check_source(given["source"])
    if settings.extra_training_source:
        check_source(settings.extra_training_source, "extra_training_source")
    return f"source: {given['source']}"


def _check_train(settings: TrainingSettings, store: str, here: bool) -> str:
    if settings.weights:
        find_weights(store, settings.weights, settings.architecture)
    if settings.architecture not in OWN_ARCHITECTURES or settings.pretrained:
        from components.classifier.network import check_architecture, check_changes
        from components.classifier.pretrained import check_pretrained

        check_architecture(settings.architecture)
        check_changes(settings.architecture, settings.width, settings.dropout)
        if settings.pretrained:
            check_pretrained(settings.architecture)
    if here and (settings.gpus not in {"", "0"} or settings.device not in {"auto", "cpu"}):
        from components.classifier.device import choose_device

        choose_device(settings.device, settings.gpus)
    start = f" from the weights {settings.weights}" if settings.weights else ""
    return f"training: {settings.architecture}{start}, {settings.time_budget or f'epochs {settings.epochs}'}"


def _check_nodes(given: Mapping[str, Any], here: bool) -> Iterator[str]:
    asked = Resources.read(given["resources"])
    if asked.nodes == 1:
        return
    several = f"nodes={asked.nodes}"
    if here:
        raise UsageError(f"{several} needs a cluster with Kubeflow Trainer, and this run is local; leave nodes out of resources")
    if importlib.util.find_spec("kubeflow") is None:
        raise UsageError(f"{several} needs Kubeflow's SDK in the image: make image EXTRAS=trainer (pip install 'penstock[trainer]')")
    if not given["store"].startswith("s3://"):
        raise UsageError(f"{several} needs a store that all pods reach, not {given['store']}; set store to one such as s3://bucket/prefix")
    if not IngestSettings.read(given["ingest"]).keep_dataset:
        raise UsageError(f"{several} needs the dataset in the store, where each node reads it; set keep_dataset=true in ingest")
    check_batches(TrainingSettings.of_run(given), asked)
    yield f"nodes: {asked.nodes}, by Kubeflow Trainer"


def _check_decision(given: Mapping[str, Any]) -> str:
    environment = deciding_environment(given["environment"])
    environment.policy_with(given["policy"])
    check_strategy(given["strategy"], given["actor"], given["reason"])
    environment.deployment.require_strategy(given["strategy"], given["environment"])
    check_target(*(given[name] for name in ("target", "store", "name", "serving", "namespace")))
    return f"gate: {given['strategy']} in {given['environment']}, target {given['target']}"


def _check_cluster(given: Mapping[str, Any], here: bool) -> Iterator[str]:
    """Examine the cluster that the run will deploy to: from a pod of it, or where the deploy step will use this machine's KUBECONFIG."""
    if given["target"] == "kserve" and (here or "KUBERNETES_SERVICE_HOST" in os.environ):
        from components.doctor.before import refuse_what_breaks  # the Kubernetes client takes a second to import

        settings = KServeSettings.read(given["serving"], given["namespace"])
        yield refuse_what_breaks(settings, settings.service_name(given["name"]))


def _check_store(url: str) -> str:
    """Write and delete one small object: a registry that cannot be written is known before the training, not after.

    A bucket that is not there is said before anything is written, which would make it on some servers.
    """
    store = open_store(url)
    store.require_place()
    key = f"preflight/{uuid.uuid4().hex}"
    store.create(key, b"can this be written?")
    store.delete(key)
    return f"store: {store.url} can be written"
