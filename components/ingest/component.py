"""What KFP sees of ingest; the work is in ingest.py."""

from kfp import dsl

from components.step_image import component


@component
def ingest_dataset(
    dataset: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
    source: str,
    ingest: dict = {},  # noqa: B006 - kfp reads the default, nothing changes it
    store: str = "",
) -> str:
    """Read a source of labelled pictures, check it, split it, and write it as a dataset version.

    Args:
        dataset: The dataset version: dataset.json and, per split, images.npy, labels.npy and columns.parquet.
        report: The checks, and pictures of two splits that look alike, one HTML file.

    Returns:
        The dataset's digest: 64 hexadecimal digits over classes, pixels, labels and splits.
    """
    import shutil
    from pathlib import Path

    from components.bundle.dataset import REPORT
    from components.ingest import ingest as step
    from components.settings.ingest import IngestSettings

    info = step.ingest(source, dataset.path, IngestSettings.read(ingest), store=store)
    shutil.copyfile(Path(dataset.path) / REPORT, report.path)
    dataset.metadata["digest"] = info.digest
    dataset.metadata["source"] = info.source
    dataset.metadata["classes"] = len(info.classes)
    dataset.metadata["shape"] = "x".join(str(side) for side in info.shape)
    for split, counts in info.counts.items():
        dataset.metadata[split] = sum(counts.values())
    dataset.metadata["set_aside"] = len(info.set_aside)
    return info.digest
