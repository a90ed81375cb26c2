"""`penstock demo`: training, gate, deployment and predictions in one command, on data that needs no network."""

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table
from rich.text import Text

from pipelines.cli.output import DEFAULT_STORE, SettingsOption, StoreOption, console
from pipelines.cli.project import DEFAULT_NAME
from pipelines.cli.run import check, execute, prepare
from pipelines.cli.summary import print_training

if TYPE_CHECKING:
    from components.bundle.dataset import Dataset, Split

SAMPLES = Path(".penstock/demo")
_SHOWN = 6
_START_SECONDS = 60.0


def demo(
    store: StoreOption = DEFAULT_STORE,
    settings: SettingsOption = None,
) -> None:
    """Train a classifier of handwritten digits, gate it, deploy it, and send the real predictor pictures it has never seen.

    Example: `penstock demo`
    """
    from components.registry import Registry
    from components.storage import open_store

    arguments = prepare("training", settings or [], env="dev", store=store, name=DEFAULT_NAME)
    console.print(Text.assemble(("Training on ", ""), (arguments["source"], "bold"), ", step by step as on Kubeflow:"))
    result = execute("training", arguments)
    check(result, arguments)
    print_training(result, arguments)

    registry = Registry(open_store(arguments["store"]), arguments["name"])
    champion = registry.ledger.champion()
    if champion is None:
        console.print("\nThe gate held the only version, so nothing serves yet; the reasons are above.")
        return
    from components.bundle.dataset import Dataset

    dataset = Dataset.load(result.artifact("ingest-dataset", "dataset"))
    with registry.opened(champion) as folder:
        _ask_predictor(arguments["name"], folder, dataset)
    _print_next_steps(arguments["name"], dataset, result.outputs["version"])


def _ask_predictor(name: str, model_dir: Path, dataset: "Dataset") -> None:
    """Start the predictor as KServe does, send pictures of the sealed test split by V1 and V2, and print its predictions."""
    from components.inference_client import InferenceClient, png_base64
    from components.validate_serving.predictor_process import predictor

    test = dataset.split("test")
    chosen = _one_of_each_label(test)
    images, labels = np.asarray(test.images[chosen]), [dataset.info.classes[label] for label in test.labels[chosen]]
    with predictor(name, model_dir, _START_SECONDS) as (_, started):
        client = InferenceClient(started.url, name)
        v1 = client.predict([{"b64": png_base64(image)} for image in images])
        v2 = client.infer(images, "json", labels=True)
    console.print(f"\nThe predictor was ready {started.cold_start:.1f} s after its start. About test pictures it says:")
    table = Table()
    for heading in ("is", "V1 says", "confidence", "V2 says", "confidence"):
        table.add_column(heading, justify="right")
    for row, (label, prediction) in enumerate(zip(labels, v1["predictions"], strict=True)):
        right = "green" if prediction["label"] == label else "red"
        first, second = Text(prediction["label"], style=right), Text(v2.labels[row], style=right)
        table.add_row(Text(label), first, f"{prediction['confidence']:.4f}", second, f"{v2.probabilities[row].max():.4f}")
    console.print(table)


def _one_of_each_label(test: "Split") -> list[int]:
    labels = np.asarray(test.labels)
    return [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)[:_SHOWN]]


def _print_next_steps(name: str, dataset: "Dataset", version: str) -> None:
    from components.classifier.images import encode_png

    test = dataset.split("test")
    SAMPLES.mkdir(parents=True, exist_ok=True)
    first = _one_of_each_label(test)[0]
    picture = SAMPLES / f"picture-of-class-{int(test.labels[first])}.png"
    picture.write_bytes(encode_png(np.asarray(test.images[first])))
    request = SAMPLES / "request.json"
    request.write_text(json.dumps({"instances": [{"b64": base64.b64encode(picture.read_bytes()).decode()}]}), "utf-8")
    commands = [
        ("serve the champion", "penstock serve"),
        ("  and ask it", f"curl -s localhost:8080/v1/models/{name}:predict -d @{request}"),
        ("  or", f"penstock predict {picture}"),
        ("open the report", f"penstock report {version} --output report.html"),
        ("train on MNIST", "penstock run training --set source=mnist --name mnist"),
        ("compile for Kubeflow", "penstock compile --output build/pipelines"),
        ("submit a run", "penstock submit training --host https://kubeflow.example/pipeline --set store=s3://bucket/penstock"),
    ]
    console.print("\nWhat to try next (after `source .venv/bin/activate`):")
    for purpose, command in commands:
        console.print(Text.assemble((f"  {purpose:<22}", "dim"), command), soft_wrap=True)
