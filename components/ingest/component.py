"""What KFP sees of ingest; the work is in ingest.py."""

from kfp import dsl

from components.step_image import component


@component
def ingest_dataset(
    dataset: dsl.Output[dsl.Dataset],
    source: str,
    image_size: str = "",
    channels: str = "",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    on_unreadable: str = "set_aside",
    max_duplicates: int = 0,
    extra_training_source: str = "",
) -> str:
    """Read a source of labelled pictures, check it, split it, and write it as a dataset version.

    Args:
        dataset: The dataset version: dataset.json and, per split, images.npy, labels.npy and columns.parquet.
        source: digits, mnist, fashion_mnist, kmnist, cifar10, or a folder, tar, zip or s3:// address of pictures or IDX files.
        image_size: "" (the pictures' own, the same for all), "28" or "28x32" (height x width).
        channels: "" (from the pictures), "1" (grey) or "3" (RGB).
        validation_fraction: The share of each class that is held out of training, where the source has no such split.
        test_fraction: The share of each class that is sealed for evaluation, where the source has no such split.
        seed: Decides, with each picture's content, which split it goes to.
        on_unreadable: "set_aside" goes on without pictures that cannot be decoded and names them, "fail" stops.
        max_duplicates: How many pictures may be in two given splits; they are dropped from training. More: refused.
        extra_training_source: "" or a second source that is only trained on, such as an export of labelled pictures from the review queue.

    Returns:
        The dataset's digest: 64 hexadecimal digits over classes, pixels, labels and splits.
    """
    from components.ingest.ingest import ingest
    from components.settings.ingest import IngestSettings, parse_channels, parse_image_size

    options = IngestSettings(
        image_size=parse_image_size(image_size),
        channels=parse_channels(channels),
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=int(seed),
        on_unreadable=on_unreadable,
        max_duplicates=int(max_duplicates),
        extra_training_source=extra_training_source,
    )
    info = ingest(source, dataset.path, options)
    dataset.metadata["digest"] = info.digest
    dataset.metadata["source"] = info.source
    dataset.metadata["classes"] = len(info.classes)
    dataset.metadata["shape"] = "x".join(str(side) for side in info.shape)
    for split, counts in info.counts.items():
        dataset.metadata[split] = sum(counts.values())
    dataset.metadata["set_aside"] = len(info.set_aside)
    return info.digest
