"""The validate_serving step as Kubeflow sees it: it runs in the image that serves."""

from kfp import dsl

from components.step_image import predictor_component


@predictor_component
def validate_serving(
    version: str,
    store: str,
    name: str,
    report: dsl.Output[dsl.Markdown],
    environment: str = "dev",
) -> str:
    """Serve a version with the real predictor and send its golden requests; returns the version, so that deploying follows.

    Args:
        version: The published version.
        report: What was compared and measured.
    """
    from components.bundle.environment import load_environment
    from components.validate_serving.validation import validate_version

    budget = load_environment(environment).serving.latency_budget_ms
    result = validate_version(version, store, name, budget, report.path)
    report.metadata.update(result.metadata())
    print(result.summary())
    return version
