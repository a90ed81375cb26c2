"""What Kubeflow sees of publishing a model version."""

from kfp import dsl

from components.step_image import slim_component


@slim_component
def publish_model(
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    summary: dsl.Output[dsl.Markdown],
    store: str,
    name: str,
    run: str = "",
) -> str:
    """Publish a trained and evaluated model as an immutable version; returns the version's name.

    Args:
        summary: Where the version lies, how to see its report, and its model card.
    """
    from pathlib import Path

    from components.publish.publishing import page_of, publish

    version = publish(Path(model.path), Path(evaluation.path), store=store, name=name, run=run)
    Path(summary.path).write_text(page_of(version, store=store, name=name), "utf-8")
    return version
