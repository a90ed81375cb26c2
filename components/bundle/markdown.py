"""The only place that makes text from outside safe in Markdown: model cards, and the pages that steps show in Kubeflow."""

import html
import re
from collections.abc import Iterable, Sequence

_MARKS = re.compile(r"([\\`*_{}\[\]|#~=!+])")


def escape(text: str) -> str:
    """Text in which nothing is Markdown or HTML, on one line.

    Only &amp;, &lt; and &gt; are entities: Kubeflow's UI (markdown-to-jsx) shows numbered ones as they are written.
    """
    return _MARKS.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table whose cells are texts from anywhere; a head that ends in `:` is set to the right."""
    lines = [f"| {' | '.join(name.removesuffix(':') for name in head)} |"]
    lines += ["|" + "|".join("--:" if name.endswith(":") else "---" for name in head) + "|"]
    return lines + [f"| {' | '.join(escape(cell) for cell in row)} |" for row in rows]
