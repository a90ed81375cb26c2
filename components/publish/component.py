"""What Kubeflow sees of publishing a model version."""

from kfp import dsl

from components.step_image import slim_component


@slim_component
def publish_model(
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    store: str,
    name: str,
    run: str = "",
) -> str:
    """Publish a trained and evaluated model as an immutable version; returns the version's name."""
    from pathlib import Path

    from components.publish.publishing import publish

    return publish(Path(model.path), Path(evaluation.path), store=store, name=name, run=run)
