"""Compile the pipelines to KFP's intermediate representation, the YAML that Kubeflow takes."""

from pathlib import Path

from components.classifier.errors import UsageError
from pipelines.catalogue import PIPELINES, load_pipeline


def compile_pipelines(output: Path) -> list[Path]:
    """Write NAME.yaml for every pipeline into a directory; the same sources give the same bytes.

    The image is what PENSTOCK_IMAGE names. Raises UsageError when it ends in `:latest`, under which a node may keep an
    old image and run old code.
    """
    from kfp import compiler

    from components.image import IMAGE

    check_image(IMAGE)
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for name in PIPELINES:
        path = output / f"{name}.yaml"
        compiler.Compiler().compile(load_pipeline(name), package_path=str(path))
        written.append(path)
    return written


def check_image(image: str) -> None:
    """Refuse an image reference whose content can change under it: no tag, or `latest`."""
    name = image.rsplit("/", 1)[-1]
    if "@sha256:" not in image and (":" not in name or name.endswith(":latest")):
        raise UsageError(
            f"PENSTOCK_IMAGE={image} can change its content; name an immutable tag or a digest, such as registry/penstock-pipeline:0.1.0"
        )
