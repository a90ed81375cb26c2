"""The evaluation and the gate's decision as Markdown, which Kubeflow shows in a run."""

from components.bundle.decision import HEADINGS, SIGNS, Decision
from components.bundle.evaluation import Evaluation
from components.bundle.markdown import escape, table
from components.bundle.policy import bound_text
from components.report.views import classes_by_recall

MAX_CLASSES = 20
MAX_CONFUSIONS = 5


def decision_markdown(decision: Decision) -> str:
    """Write the verdict, who asked for it, and a line for each rule."""
    facts = {
        "Version": decision.version,
        "Environment": decision.environment,
        "Strategy": decision.strategy,
        "Compared with": decision.champion or "nothing: no version serves yet",
        "Asked for by": decision.actor,
        "Because": decision.reason,
    }
    rules = [
        (f"{SIGNS[rule.outcome]} {rule.outcome}", rule.rule, rule.shown, bound_text(rule.bound), rule.reason) for rule in decision.rules
    ]
    lines = [f"# {HEADINGS[decision.verdict]}", "", escape(decision.summary), ""]
    lines += [*table(("", ""), [(key, value) for key, value in facts.items() if value]), ""]
    lines += table(("", "Rule", "Value", "Bound", "Reason"), rules)
    if not decision.deploy and decision.remedies:
        lines += ["", "What would change this:", "", *(f"- {escape(line)}" for line in decision.remedies)]
    return "\n".join(lines) + "\n"


def evaluation_markdown(evaluation: Evaluation) -> str:
    """Write figures, weakest classes, most frequent confusions, the champion and warnings."""
    a = evaluation.accuracy
    weakest = classes_by_recall(evaluation)[:MAX_CLASSES]
    lines = [
        f"# {escape(evaluation.name)}: {a.value:.2%} of {a.n:,} sealed test pictures right",
        "",
        f"95% interval {a.low:.2%} to {a.high:.2%} · macro F1 {evaluation.macro_f1:.4f} · calibration error "
        f"{evaluation.calibration.ece_after:.4f} (before temperature scaling {evaluation.calibration.ece_before:.4f}) · "
        f"{evaluation.latency.p50_ms:.2f} ms per picture",
        "",
        _champion(evaluation),
        "",
        *table(
            ("class", "pictures:", "precision:", "recall:", "F1:"),
            [(c.name, str(c.support), *(_figure(value) for value in (c.precision, c.recall, c.f1))) for c in weakest],
        ),
    ]
    if len(evaluation.per_class) > len(weakest):
        lines += ["", f"The {len(weakest)} classes with the lowest recall of {len(evaluation.per_class)}."]
    if evaluation.largest_confusions:
        confusions = evaluation.largest_confusions[:MAX_CONFUSIONS]
        named = ", ".join(f"{escape(c.label)} taken for {escape(c.predicted)} ({c.count})" for c in confusions)
        lines += ["", f"Most frequent confusions: {named}."]
    lines += [f"\n> {escape(warning)}" for warning in evaluation.warnings]
    return "\n".join(lines) + "\n"


def _champion(evaluation: Evaluation) -> str:
    champion = evaluation.champion
    if champion is None:
        return "No champion yet: nothing to compare with."
    if champion.paired is None:
        return f"Champion {escape(champion.version)}: not comparable, {escape(champion.reason)}."
    p = champion.paired
    return (
        f"Champion {escape(champion.version)} on the same pictures: {p.accuracy.value:.2%}. Only this model right: {p.only_challenger}, "
        f"only the champion right: {p.only_champion} (difference {p.difference:+.2%}, 95% interval {p.difference_low:+.2%} to "
        f"{p.difference_high:+.2%})."
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
