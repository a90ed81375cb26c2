"""Compile the pipelines to KFP's intermediate representation, the YAML that Kubeflow takes."""

from pathlib import Path
from typing import Any

from components.classifier.errors import UsageError
from pipelines.catalogue import PIPELINES, load_pipeline


def compile_pipelines(output: Path) -> list[Path]:
    """Write NAME.yaml for every pipeline into a directory; the same sources give the same bytes.

    The images are what PENSTOCK_IMAGE, PENSTOCK_SLIM_IMAGE and PENSTOCK_PREDICTOR_IMAGE name, and what steps ask of the cluster is
    what the file PENSTOCK_RESOURCES says. Raises UsageError when the predictor's image is not known, when one ends in `:latest`, under
    which a node may keep an old image and run old code, and when the file names steps that are not there; StoreError when the directory
    cannot be written to.
    """
    from kfp import compiler

    from components.storage.files import explain_os_errors

    for name in PIPELINES:
        check_images(load_pipeline(name))
    check_resources()
    written = [output / f"{name}.yaml" for name in PIPELINES]
    with explain_os_errors(f"cannot write to {output}"):
        output.mkdir(parents=True, exist_ok=True)
        for name, path in zip(PIPELINES, written, strict=True):
            compiler.Compiler().compile(load_pipeline(name), package_path=str(path))
    return written


def check_resources() -> None:
    """Raise UsageError when PENSTOCK_RESOURCES names a step that no pipeline has: its settings would be ignored without a message."""
    from components.settings.resources import check_steps
    from pipelines.steps import RESOURCES

    if RESOURCES:
        check_steps(RESOURCES, {step for name in PIPELINES for step in steps_of(name)})


def steps_of(pipeline: str) -> set[str]:
    """The names of a pipeline's steps, such as train-model; raises UsageError for an unknown pipeline."""
    from components.settings.resources import step_name

    return {step_name(executor) for executor in load_pipeline(pipeline).pipeline_spec.deployment_spec["executors"]}


def images_of(pipeline: Any) -> dict[str, str]:
    """The images that a pipeline's steps run in, by the variables that name them.

    Raises UsageError when one of them is the predictor's and PENSTOCK_IMAGE does not tell which one belongs to it.
    """
    from components.step_image import IMAGE, PREDICTOR_IMAGE, SLIM_IMAGE, UNNAMED

    used = {executor["container"]["image"] for executor in pipeline.pipeline_spec.deployment_spec["executors"].values()}
    if UNNAMED in used:
        raise UsageError(
            f"PENSTOCK_IMAGE={IMAGE} does not tell which predictor's image belongs to it; "
            "set PENSTOCK_PREDICTOR_IMAGE to the one that serves, such as registry/penstock-predictor:0.1.0"
        )
    slim = {"PENSTOCK_SLIM_IMAGE": SLIM_IMAGE} if SLIM_IMAGE != IMAGE else {}
    named = {"PENSTOCK_IMAGE": IMAGE, **slim, "PENSTOCK_PREDICTOR_IMAGE": PREDICTOR_IMAGE}
    return {variable: image for variable, image in named.items() if image in used}


def check_images(pipeline: Any) -> None:
    """Raise UsageError for a pipeline with a step whose image is not known, or whose content can change."""
    from components.step_image import IMAGE

    check_image(IMAGE)  # first: without a tag, the predictor's image cannot be named either
    for variable, image in images_of(pipeline).items():
        check_image(image, variable)


def check_image(image: str, variable: str = "PENSTOCK_IMAGE") -> None:
    """Raise UsageError for an image whose content can change: no tag, or `latest`. `variable` is the environment variable that names it."""
    name = image.rsplit("/", 1)[-1]
    if "@sha256:" not in image and (":" not in name or name.endswith(":latest")):
        last = {"PENSTOCK_PREDICTOR_IMAGE": "penstock-predictor", "PENSTOCK_SLIM_IMAGE": "penstock-pipeline-slim"}
        example = f"registry/{last.get(variable, 'penstock-pipeline')}:0.1.0"
        raise UsageError(f"{variable}={image} can change its content; name an immutable tag or a digest, such as {example}")
