"""A version for the Hugging Face Hub: its files, and a card with the Hub's own metadata, in a folder or pushed to a repository."""

import json
import shutil
from pathlib import Path
from typing import Any

from components.bundle.config import BundleConfig
from components.bundle.files import CARD, CONFIG, EVALUATION, ONNX
from components.bundle.headline import Headline
from components.bundle.markdown import escape
from components.classifier.errors import RegistryError, UsageError, first_line
from components.registry import Registry

README, PREPROCESSOR = "README.md", "preprocessor_config.json"
PIPELINE_TAG = "image-classification"
_METRICS = {"accuracy": "accuracy", "macro_f1": "f1", "balanced_accuracy": "balanced_accuracy", "log_loss": "log_loss", "ece": "ece"}
"""Our figures -> the Hub's names of metrics, where it has one."""


def write_hub_folder(registry: Registry, version: str, folder: Path, license_name: str) -> list[str]:
    """Write a version's files for the Hub into an empty folder; returns their names.

    model.onnx, byte for byte as published; config.json with the class names in the form that the Hub reads (`id2label`);
    preprocessor_config.json: what is done to a picture before; README.md: the model card, below the Hub's metadata. Raises IntegrityError
    for damaged files, UsageError for metadata that the Hub would not take, and ModuleNotFoundError without the extra `hub`.
    """
    there = registry.get(version).manifest.files.keys()
    with registry.opened(version, {ONNX, CONFIG, CARD, EVALUATION} & there) as found:
        config = BundleConfig.load(found)
        results = Headline.read(found / EVALUATION if EVALUATION in there else None)
        card = (found / CARD).read_text("utf-8") if CARD in there else f"# {registry.name} {version}\n"
        shutil.copyfile(found / ONNX, folder / ONNX)
    contents = {
        CONFIG: json.dumps(_config(config, version), indent=1, ensure_ascii=False) + "\n",
        PREPROCESSOR: json.dumps(_preprocessing(config), indent=1) + "\n",
        README: hub_card(card, registry.name, version, config, results, license_name),
    }
    for name, text in contents.items():
        (folder / name).write_text(text, "utf-8")
    return [ONNX, *contents]


def push(folder: Path, repository: str, message: str, *, private: bool) -> str:
    """Upload a folder to a repository of the Hub, which is made where it is not there, as one commit; returns the commit's address.

    HF_TOKEN, or `hf auth login`, says who pushes, and HF_ENDPOINT another Hub than the public one. Raises UsageError for a name that is not
    `OWNER/NAME`, and RegistryError when the Hub refuses or cannot be reached.
    """
    import huggingface_hub as hub

    try:
        api = hub.HfApi(library_name="penstock")
        api.create_repo(repository, private=private, exist_ok=True)
        added = [hub.CommitOperationAdd(path.name, path) for path in sorted(folder.iterdir())]
        commit = api.create_commit(repository, added, commit_message=message)
    except hub.errors.HFValidationError as error:
        raise UsageError(f"{repository!r} is not a name of a repository ({first_line(error)}); give OWNER/NAME") from error
    except (hub.errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # the second: no token
        remedy = "check HF_TOKEN and its right to write, HF_ENDPOINT and the network"
        raise RegistryError(f"the Hub did not take {repository} ({first_line(error)}); {remedy}") from error
    return str(commit.commit_url)


def hub_card(card: str, name: str, version: str, config: BundleConfig, results: Headline, license_name: str) -> str:
    """Return the model card below the Hub's metadata: licence, tags, and the measured figures as `model-index`.

    Raises ModuleNotFoundError without the extra `hub`.
    """
    import huggingface_hub as hub

    figures = {metric: results.figures[ours] for ours, metric in _METRICS.items() if ours in results.figures}
    dataset: dict[str, Any] = {
        "dataset_type": "imagefolder",
        "dataset_name": _public_name(results.source or "") or "unknown",
        "dataset_revision": config.dataset_digest,
    }
    measured = [
        hub.EvalResult(
            task_type=PIPELINE_TAG,
            metric_type=metric,
            metric_value=value,
            dataset_split="test",
            metric_name="Macro F1" if metric == "f1" else None,
            **dataset,
        )
        for metric, value in figures.items()
    ]
    data = hub.ModelCardData(
        license=license_name or None,
        library_name="onnx",
        pipeline_tag=PIPELINE_TAG,
        tags=["penstock", "onnx", PIPELINE_TAG, config.architecture],
        model_name=f"{name} {version}",
        eval_results=measured or None,
    )
    told = card.replace(f"| {escape(results.source)} |", f"| {escape(_public_name(results.source))} |") if results.source else card
    return f"---\n{data.to_yaml()}\n---\n\n{told}"


def _public_name(source: str) -> str:
    """A dataset's address, or of a folder or file of this machine the name alone: where it lies is nobody's business on the Hub."""
    return source if "://" in source else Path(source).name or source


def _config(config: BundleConfig, version: str) -> dict[str, Any]:
    labels = dict(enumerate(config.classes))
    return {
        "model_type": "penstock",
        "architecture": config.architecture,
        "version": version,
        "num_labels": len(labels),
        "id2label": labels,
        "label2id": {name: number for number, name in labels.items()},
        "dataset_digest": config.dataset_digest,
        "calibration": config.calibration,
    }


def _preprocessing(config: BundleConfig) -> dict[str, Any]:
    """What is done to a picture before the graph, which scales and normalises by itself."""
    takes = config.input
    return {
        "image_processor_type": "penstock",
        "do_convert_rgb": takes.channels == 3,
        "do_resize": True,
        "size": {"height": takes.height, "width": takes.width},
        "resample": 2,
        "do_rescale": False,
        "do_normalize": False,
        "inside_the_graph": {"rescale_factor": 1 / 255, "image_mean": takes.mean, "image_std": takes.std},
        "input": {"name": "image", "type": "uint8", "shape": ["N", takes.height, takes.width, takes.channels]},
    }
