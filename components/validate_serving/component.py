"""The validate_serving step as Kubeflow sees it."""

from kfp import dsl

from components.image import component


@component
def validate_serving(
    version: str,
    store: str,
    name: str,
    report: dsl.Output[dsl.Markdown],
    latency_budget_ms: float = 0.0,
) -> str:
    """Serve a version with the real predictor and send its golden requests; returns the version, so that deploying follows.

    Args:
        version: The published version.
        store: Address of the model store.
        name: The model's name.
        report: What was compared and measured.
        latency_budget_ms: What one request may take at the 95th percentile; 0 for no limit.
    """
    from components.validate_serving.validation import validate_version

    result = validate_version(version, store, name, latency_budget_ms, report.path)
    report.metadata.update(result.metadata())
    print(result.summary())
    return version
