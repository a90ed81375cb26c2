"""The evaluate step as Kubeflow sees it."""

from kfp import dsl

from components.step_image import slim_component


@slim_component
def evaluate_model(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    confusion_matrix: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
    store: str,
    name: str,
) -> str:
    """Score the exported model on the sealed test split, beside the champion; returns the champion's version or "".

    Args:
        dataset: What ingest wrote; only its test split is opened.
        model: What train wrote.
        evaluation: evaluation.json, predictions.npz, reference.json, golden.npz and report.html.
        metrics: The main figures.
        confusion_matrix: Confusion matrix, and a ROC curve of at most 200 points.
        report: One HTML file for people.
        summary: The figures in a few lines of Markdown.
    """
    from components.evaluate import step

    result = step.run(dataset.path, model.path, evaluation.path, report.path, summary.path, store, name)
    metrics.metadata.update(result.metrics)
    confusion_matrix.log_confusion_matrix(result.categories, result.matrix)
    if result.roc:
        confusion_matrix.log_roc_curve(*result.roc)
    return result.champion
