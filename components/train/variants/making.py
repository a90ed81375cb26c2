"""Make a variant: model.onnx and its companions, as train writes them, of published versions and the dataset that they know.

The training and validation splits are opened, the sealed test split never.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime
import torch

from components.bundle import files
from components.bundle.config import VARIANT, BundleConfig, FamiliarityConfig, Parent, Variant, code_version, facts_of
from components.bundle.dataset import Dataset
from components.bundle.formats import JsonFile
from components.bundle.model import Answers, Classifier
from components.classifier.errors import DataError, TrainingError
from components.classifier.images import Pixels
from components.classifier.network import ServingGraph
from components.registry import Registry
from components.registry.parents import require_agreement
from components.settings.variant import VariantSettings
from components.storage.files import atomic_directory
from components.train.batches import Normalise
from components.train.convert import load_network
from components.train.export import check_answers, check_export, export_onnx, joined, probes
from components.train.familiarity import QUANTILE, FamiliarityFit, limit
from components.train.temperature import fit_temperature, refit_temperature
from components.train.training import save_weights
from components.train.variants import graphs
from components.train.variants.average import average_weights, logits_of, measure_batch_norm
from components.train.variants.quantise import calibration_pictures, quantise_static, quantise_weights

MIN_AGREEMENT = 0.98
"""Where a static int8 model gives a smaller share of validation pictures the class that its parent gives, only weights are quantised."""


class VariantRecord(JsonFile):
    """What training.json of a variant holds; there are no epochs."""

    FILE: ClassVar[str] = files.TRAINING
    variant: Variant
    calibration: str
    versions: dict[str, str]
    """Of the libraries that made it."""


@dataclass(frozen=True)
class Made:
    """What was made, for the run's metrics."""

    kind: str
    how: str
    temperature: float
    size_bytes: int
    parent_bytes: int
    """Of the parents' model.onnx together."""
    export_difference: float
    """The largest difference that the size of a batch makes, or from the mean of the members, or from torch."""


def make_variant(
    dataset_path: str | Path, model_path: str | Path, registry: Registry, versions: Sequence[str], options: VariantSettings
) -> Made:
    """Write files.TRAINED_FILES into `model_path`, model.safetensors only for averaged weights; the directory appears when it is complete.

    Raises UsageError for versions that do not go together, DataError for another dataset than that of the versions or one without
    pictures to calibrate with, IntegrityError and RegistryError for versions that cannot be read, and TrainingError for a network that
    cannot be quantised, or a result that depends on the size of a batch.
    """
    wanted = [files.ONNX, files.CONFIG, *([files.WEIGHTS] if options.kind == "average" else [])]
    with tempfile.TemporaryDirectory(prefix="penstock-parents-") as scratch, atomic_directory(Path(model_path), replace=True) as folder:
        directories = [registry.fetch(version, Path(scratch) / version, wanted) for version in versions]
        parents = [Parent(version=version, sha256=registry.get(version).manifest.content_digest) for version in versions]
        making = _Making(Dataset.load(dataset_path), directories, parents, options)
        return {"int8": making.int8, "ensemble": making.ensemble, "average": making.average}[options.kind](folder)


class _Making:
    def __init__(self, dataset: Dataset, directories: Sequence[Path], parents: Sequence[Parent], options: VariantSettings) -> None:
        self._directories, self._parents, self._options = directories, list(parents), options
        self._configs = [BundleConfig.load(directory) for directory in directories]
        require_agreement(options.kind, [parent.version for parent in parents], self._configs)
        if dataset.info.digest != self._configs[0].dataset_digest:
            raise DataError(
                f"the dataset is {dataset.info.digest[:12]}, the versions were trained on {self._configs[0].dataset_digest[:12]}; "
                "give the dataset version that was kept when they were trained"
            )
        self._training, self._validation = dataset.split("train"), dataset.split("validation")

    def int8(self, folder: Path) -> Made:
        """Quantise the parent."""
        parent, options = self._configs[0], self._options
        split = self._training if options.calibration_split == "train" else self._validation
        if len(split) == 0:
            raise DataError(f"the {options.calibration_split} split is empty, nothing can calibrate; set the other calibration_split")
        pictures = calibration_pictures(split, options.calibration_pictures)
        static, model = self._quantised(pictures)
        how = f"static quantisation (QDQ, per channel), calibrated with {len(pictures)} pictures of the {options.calibration_split} split"
        variant = self._variant(how if static else "weights rounded to 8 bits per channel, computed in floating point")
        config = _described(parent, variant, f"{parent.architecture}, int8", parent.parameters)
        return self._finish(folder, model, config, variant)

    def _quantised(self, pictures: Pixels) -> tuple[bool, onnx.ModelProto]:
        """Whether the model is static, and the model; `auto` takes static unless that fails, or changes the answers too often."""
        path, wanted = self._directories[0] / files.ONNX, self._options.quantisation
        if wanted == "weights":
            return False, quantise_weights(path)
        try:
            static = quantise_static(path, pictures)
        except TrainingError as error:
            if wanted == "static":
                raise
            print(f"note: {error}, as is done now")
            return False, quantise_weights(path)
        if wanted == "static" or (same := self._agreement(static)) >= MIN_AGREEMENT:
            return True, static
        weights = quantise_weights(path)
        other = self._agreement(weights)
        print(
            f"note: static int8 answers {same:.2%} of the validation pictures as its parent does, with int8 weights only it is {other:.2%}"
        )
        return (False, weights) if other > same else (True, static)

    def _agreement(self, model: onnx.ModelProto) -> float:
        if len(self._validation) == 0:
            return 1.0
        theirs = Classifier(self._directories[0]).probabilities(self._validation.images)
        ours = _answers(model, self._configs[0], self._validation.images).probabilities
        return float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())

    def ensemble(self, folder: Path) -> Made:
        """Join the parents in one graph."""
        variant = self._variant("mean of the members' probabilities, one graph")
        names = [f"({it.architecture})" if "," in it.architecture else it.architecture for it in self._configs]  # one made of others
        familiar = all(config.familiarity is not None for config in self._configs)
        first = self._configs[0] if familiar else self._configs[0].model_copy(update={"familiarity": None})
        config = _described(first, variant, f"ensemble of {len(names)}: {', '.join(names)}", {}).model_copy(update={"temperature": 1.0})
        model = graphs.joined([onnx.load(directory / files.ONNX) for directory in self._directories], familiar)
        images = probes(self._samples, config.input.spec)
        members = [Classifier(directory).answer(images) for directory in self._directories]
        mean = np.mean([joined(*(answers if familiar else (answers.probabilities, None))) for answers in members], axis=0)
        difference = float(np.abs(joined(*_answers(model, config, images)) - mean).max())
        return self._finish(folder, model, config, variant, difference)

    def average(self, folder: Path) -> Made:
        """Average the parents' weights, and calibrate and export the network as training does."""
        variant = self._variant("mean of the weights; statistics of batch normalisation measured again on the training split")
        parent = self._configs[0]
        mean, std = parent.input.mean, parent.input.std
        normalise = Normalise(mean, std, torch.device("cpu"))
        networks = [load_network(directory, config) for directory, config in zip(self._directories, self._configs, strict=True)]
        network = average_weights(networks)
        measure_batch_norm(network, normalise, self._training)
        temperature, how = 1.0, "not fitted: no validation pictures"
        if len(self._validation):
            temperature, how = fit_temperature(logits_of(network, normalise, self._validation), np.array(self._validation.labels))
        familiarity, about = FamiliarityFit(network, normalise, torch.device("cpu")).fit(self._training, self._validation, 0)
        described = _described(parent, variant, parent.architecture, parent.parameters)
        config = described.model_copy(update={"temperature": temperature, "calibration": how, "familiarity": about})
        graph = ServingGraph(network, mean, std, temperature, familiarity)
        config.save(folder)
        export_onnx(graph, config.input.spec, folder / files.ONNX, facts_of(config))
        save_weights(network, folder, config.architecture)
        return self._record(folder, config, variant, check_export(graph, folder, self._samples))

    @property
    def _samples(self) -> Pixels:
        return (self._validation if len(self._validation) else self._training).images

    def _variant(self, how: str) -> Variant:
        return Variant(kind=self._options.kind, parents=self._parents, how=how)

    def _finish(self, folder: Path, model: onnx.ModelProto, config: BundleConfig, variant: Variant, difference: float = 0.0) -> Made:
        """Fit temperature and familiarity again on the validation split, and write what serves."""
        if len(self._validation):
            found = _answers(model, config, self._validation.images)
            temperature, how = refit_temperature(found.probabilities, np.array(self._validation.labels))
            graphs.scale_probabilities(model, temperature)
            changed: dict[str, object] = {"temperature": config.temperature * temperature, "calibration": how}
            if config.familiarity is not None and found.familiarity is not None:
                graphs.scale_familiarity(model, limit(1 / np.maximum(found.familiarity.astype(np.float64), 1e-30) - 1))
                values = config.familiarity.model_dump() | {"pictures": len(self._validation), "quantile": QUANTILE}
                changed["familiarity"] = FamiliarityConfig(**values)
            config = config.model_copy(update=changed)
        config.save(folder)
        (folder / files.ONNX).write_bytes(graphs.tidy(model, facts_of(config)))
        checked = check_answers(folder, probes(self._samples, config.input.spec), None, "itself in other batches")
        return self._record(folder, config, variant, max(difference, checked))

    def _record(self, folder: Path, config: BundleConfig, variant: Variant, difference: float) -> Made:
        versions = {name: version_of(name) for name in ("penstock", "torch", "onnx", "numpy")} | {"onnxruntime": onnxruntime.__version__}
        VariantRecord(variant=variant, calibration=config.calibration, versions=versions).save(folder)
        made = Made(
            kind=variant.kind,
            how=variant.how,
            temperature=config.temperature,
            size_bytes=(folder / files.ONNX).stat().st_size,
            parent_bytes=sum((directory / files.ONNX).stat().st_size for directory in self._directories),
            export_difference=difference,
        )
        print(f"{variant}; model.onnx {made.size_bytes:,} bytes, its parents' {made.parent_bytes:,}; temperature: {config.calibration}")
        return made


def _described(parent: BundleConfig, variant: Variant, architecture: str, parameters: dict[str, object]) -> BundleConfig:
    """The parent's config.json with what the variant is; the network's settings that still hold are `parameters`."""
    changed = {
        "architecture": architecture,
        "parameters": {**parameters, VARIANT: variant.model_dump()},
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "code_version": code_version(),
    }
    return parent.model_copy(update=changed)


def _answers(model: onnx.ModelProto, config: BundleConfig, images: Pixels) -> Answers:
    """What a graph that is not written yet answers."""
    with tempfile.TemporaryDirectory(prefix="penstock-variant-") as scratch:
        config.save(scratch)
        (Path(scratch) / files.ONNX).write_bytes(model.SerializeToString())
        return Classifier(scratch).answer(images)
