"""The evaluation in a few lines of Markdown, as Kubeflow shows it in a run."""

from components.bundle.evaluation import Evaluation


def markdown(evaluation: Evaluation) -> str:
    """Write figures, weakest classes, largest confusions, the champion and warnings; names are escaped."""
    a = evaluation.accuracy
    lines = [
        f"# {escape(evaluation.name)}: {a.value:.2%} of {a.n:,} sealed test pictures right",
        "",
        f"95% interval {a.low:.2%} to {a.high:.2%} · macro F1 {evaluation.macro_f1:.4f} · calibration error "
        f"{evaluation.calibration.ece_after:.4f} (before temperature scaling {evaluation.calibration.ece_before:.4f}) · "
        f"{evaluation.latency.p50_ms:.2f} ms a picture",
        "",
        *_champion(evaluation),
        "| class | pictures | precision | recall | F1 |",
        "|---|--:|--:|--:|--:|",
    ]
    weakest = sorted(evaluation.per_class, key=lambda c: (c.recall is None, c.recall or 0.0))[:20]
    lines += [f"| {escape(c.name)} | {c.support} | {show(c.precision)} | {show(c.recall)} | {show(c.f1)} |" for c in weakest]
    if len(evaluation.per_class) > len(weakest):
        lines += ["", f"The {len(weakest)} classes with the lowest recall of {len(evaluation.per_class)}."]
    if evaluation.largest_confusions:
        lines += [
            "",
            "Most frequent confusions: "
            + ", ".join(f"{escape(c.label)} taken for {escape(c.predicted)} ({c.count})" for c in evaluation.largest_confusions[:5])
            + ".",
        ]
    lines += [f"\n> {escape(warning)}" for warning in evaluation.warnings]
    return "\n".join(lines) + "\n"


def _champion(evaluation: Evaluation) -> list[str]:
    champion = evaluation.champion
    if champion is None:
        return ["No champion yet: nothing to compare with.", ""]
    if champion.paired is None:
        return [f"Champion {escape(champion.version)}: not comparable, {escape(champion.reason)}.", ""]
    p = champion.paired
    return [
        f"Champion {escape(champion.version)} on the same pictures: {p.accuracy.value:.2%}. Only this model right: {p.only_challenger}, "
        f"only the champion right: {p.only_champion} (difference {p.difference:+.2%}, 95% interval {p.difference_low:+.2%} to "
        f"{p.difference_high:+.2%}).",
        "",
    ]


def show(value: float | None) -> str:
    """A figure with four decimals, or a dash where it is not defined."""
    return "–" if value is None else f"{value:.4f}"


def escape(text: str) -> str:
    """Keep a name from being read as Markdown or HTML."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_{}[]|#~" else c for c in text)
