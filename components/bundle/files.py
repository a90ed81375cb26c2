"""The files of a model version, and what their names mean.

| file | written by | what it is |
|---|---|---|
| model.onnx | train | uint8 pictures in, calibrated probabilities and familiarity out: normalisation and temperature are inside |
| model.safetensors | train | the weights, for further training; none in 8-bit versions and ensembles |
| config.json | train | `BundleConfig`: classes, shape, architecture, parameters, dataset digest |
| training.json | train | the epochs, and what stopped them |
| evaluation.json | evaluate | metrics on the sealed test split, and the paired comparison with the champion |
| predictions.npz | evaluate | test labels and probabilities, from which the gate can be run again |
| reference.json | evaluate | score statistics at training time, against which drift is measured |
| golden.npz | evaluate | pictures and the probabilities that a served version must give for them |
| report.html | evaluate | the evaluation, for people |
| MODEL_CARD.md | publish | what the model is for, and its numbers |
| model.sig | publish, with a key | the signature of all files but the manifest, for the tools of others (OpenSSF Model Signing) |
| manifest.json | publish, last | SHA-256 of every file, and where they came from: a version exists when this does |
"""

from enum import StrEnum

ONNX, WEIGHTS, CONFIG, TRAINING = "model.onnx", "model.safetensors", "config.json", "training.json"
EVALUATION, PREDICTIONS, REFERENCE, GOLDEN, REPORT = "evaluation.json", "predictions.npz", "reference.json", "golden.npz", "report.html"
CARD, SIGNATURE, MANIFEST = "MODEL_CARD.md", "model.sig", "manifest.json"

TRAINED_FILES = (ONNX, WEIGHTS, CONFIG, TRAINING)
EVALUATED_FILES = (EVALUATION, PREDICTIONS, REFERENCE, GOLDEN, REPORT)

INPUT_NAME, OUTPUT_NAME, FAMILIARITY = "image", "probabilities", "familiarity"
"""The tensors of model.onnx, and of the V2 inference protocol."""


class ExportFormat(StrEnum):
    """What `penstock export` writes; what each holds stands in components/train/convert.py."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    PT2 = "pt2"
    TORCHSCRIPT = "torchscript"
