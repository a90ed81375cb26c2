"""The report: one file, nothing fetched or run, names are text, and readable for ten classes or a hundred."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.bundle.evaluation import Evaluation
from components.bundle.predictions import Predictions
from components.bundle.training import Epoch, LearningCurves, TrainingRecord
from components.evaluate.comparison import VersionFiles
from components.evaluate.evaluation import evaluate
from components.report.html import figure, percent, render, render_training, signed, whole_percent
from components.report.markdown import evaluation_markdown
from components.report.plots import history_plot
from components.report.views import MAX_SUSPECT
from tests.evaluate import made

ODD = ["<script>alert(1)</script>", "骆驼", "$x^2$ & 'co' \"quoted\"", "a name without any end " * 8, "| pipe | `code` |"]
ROOT = Path(__file__).parent.parent.parent
Made = tuple[Evaluation, Predictions]


def evaluated(root: Path, classes: list[str], n: int, champion: bool = False) -> Made:
    """A model that is right about nine times in ten."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(classes), n)
    logits = rng.normal(0, 1, (n, len(classes)))
    logits[np.arange(n), labels] += 5
    made.write_dataset(root / "data", labels, classes)
    made.write_model(root / "model", made.softmax(logits), classes, temperature=1.2)
    other = made.write_model(root / "champion", made.softmax(logits + rng.normal(0, 1, logits.shape)), classes) if champion else None
    serves = VersionFiles("20260101-000000-aaaaaaaaaaaa", other) if other else None
    return evaluate(root / "data", root / "model", root / "out", serves), Predictions.load(root / "out")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return evaluated(tmp_path_factory.mktemp("odd"), ODD, 400, champion=True)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return evaluated(tmp_path_factory.mktemp("many"), [f"class number {k}" for k in range(150)], 3000)


class Page(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_is_run_and_nothing_is_fetched(odd: Made) -> None:
    html = render(*odd)
    page = Page(html)
    assert {"script", "link", "iframe", "object", "embed", "base", "form"}.isdisjoint(tag for tag, _ in page.tags)
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert attributes.get(name, "#").startswith(("data:image/png;base64,", "#"))
    assert not re.search(r"https?://|@import|url\((?!#)", html)


def test_odd_names_stay_text(odd: Made) -> None:
    text = Page(render(*odd)).text
    for name in ODD:
        assert name.strip() in text


def test_odd_names_stay_text_in_markdown(odd: Made) -> None:
    text = evaluation_markdown(odd[0])
    assert "<script>" not in text
    assert "\\| pipe \\|" in text
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| class")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}


def test_a_report_of_ten_thousand_pictures_is_small_but_for_its_wrong_pictures(tmp_path: Path) -> None:
    evaluation, predictions = evaluated(tmp_path, [str(k) for k in range(10)], 10_000)
    wrong = len(predictions.wrong)
    assert len(render(evaluation, predictions).encode()) < 300_000 + 600 * wrong


def test_every_wrong_picture_is_in_the_report_with_its_whole_file_name_by_class_pair(odd: Made) -> None:
    evaluation, predictions = odd
    name = "a/very/long/folder/of/pictures/that/goes/on/and/on/"
    predictions = replace(predictions, files={int(row): f"{name}{row}.png" for row in predictions.wrong}, label_quality=None)
    page = Page(render(evaluation, predictions))
    assert "Labels that may be wrong" not in page.text
    assert all(f"{name}{row}.png" in page.text for row in predictions.wrong)
    matrix = np.array(evaluation.confusion_matrix)
    pairs = np.count_nonzero(matrix) - np.count_nonzero(np.diag(matrix))
    assert sum(attributes.get("class") == "pair" for _, attributes in page.tags) == pairs
    assert sum(tag == "img" and "loading" in attributes for tag, attributes in page.tags) == len(predictions.wrong)


def test_labels_that_may_be_wrong_are_shown_most_suspect_first(many: Made) -> None:
    evaluation, predictions = many
    quality = np.linspace(1, 0, evaluation.n).astype(np.float32)
    predictions = replace(predictions, label_quality=quality, files={int(row): f"p{row}.png" for row in predictions.wrong})
    text = Page(render(evaluation, predictions)).text
    section = text[text.index("Labels that may be wrong") : text.index("by label and prediction")]
    worst = [int(row) for row in sorted(predictions.wrong, reverse=True)[:MAX_SUSPECT]]
    assert [int(row) for row in re.findall(r"p(\d+)\.png", section)] == worst


def test_a_report_of_more_mistakes_than_fit_stays_below_five_megabytes_and_says_what_is_left_out(many: Made) -> None:
    evaluation, _ = many
    n, side = 30_000, 112
    labels = np.arange(n) % 2
    probabilities = np.zeros((n, 150), np.float32)
    probabilities[np.arange(n), 1 - labels] = 1
    noise = np.random.default_rng(0).integers(0, 256, (100, side, side, 3), dtype=np.uint8)
    nothing = np.zeros((0, 6, 6, 1), np.uint8)
    files = {row: f"pictures/of/some/length/{row:06}.png" for row in range(n)}
    predictions = Predictions(labels, probabilities, None, nothing, None, files, noise, np.arange(100))
    html = render(evaluation.model_copy(update={"mistakes": []}), predictions)
    assert len(html.encode()) < 5_000_000
    assert "All 30,000 mistakes" in html
    assert "Listed are the 5,000 most confident" in html
    assert "are listed without their picture" in html


def test_large_noisy_mistakes_keep_the_page_below_two_megabytes(odd: Made) -> None:
    evaluation, predictions = odd
    shape = (len(evaluation.mistakes), 512, 384, 3)
    large = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    hidden = np.random.default_rng(0).random((len(large), 8, 8), np.float32)
    html = render(evaluation, Predictions(predictions.labels, predictions.probabilities, None, large, occluded=hidden))
    assert len(html.encode()) < 2_000_000


def test_what_the_model_looked_at_is_coloured_beside_the_mistake(odd: Made) -> None:
    evaluation, predictions = odd
    confidence = evaluation.mistakes[0].confidence
    hidden = np.full((1, 4, 4), confidence, np.float32)
    hidden[0, 3, 0] = 0.125
    html = render(evaluation, replace(predictions, occluded=hidden))
    (marked,) = [attributes["src"] for _, attributes in Page(html).tags if "looked at" in attributes.get("alt", "")]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(marked.split(",")[1]))).convert("RGB")).astype(int)
    colour = pixels[:, :, 0] - pixels[:, :, 2]
    half = len(colour) // 2
    assert colour[half + 15 :, : half - 15].max() > 100
    assert max(colour[:half].max(), colour[:, half:].max()) == 0
    assert "falls to 12.5% with a part hidden" in Page(html).text
    assert html.count("falls to") == 1
    assert "looked at" not in render(evaluation, replace(predictions, occluded=None))


def test_mistakes_are_shown_with_their_own_pictures(odd: Made) -> None:
    evaluation, predictions = odd
    images = [attributes for tag, attributes in Page(render(evaluation, predictions)).tags if tag == "img" and "loading" not in attributes]
    shown = [attributes["src"].split(",")[1] for attributes in images if attributes["alt"].startswith("a test picture")]
    assert len(shown) == len(evaluation.mistakes) > 0
    for source, image, mistake in zip(shown, predictions.mistake_images, evaluation.mistakes, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))), image[:, :, 0])
        assert (image[0, 0, 0], image[0, 1, 0]) == divmod(mistake.index, 256)


def test_many_classes_are_all_in_the_table_and_the_heatmap_says_what_it_leaves_out(many: Made) -> None:
    html = render(*many)
    table = html[html.index('<table class="classes">') :]
    table = table[: table.index("</table>")]
    assert all(f">class number {k}</span>" in table for k in range(150))
    assert "Shown are the 30 classes with the most mistakes; 120 more are left out." in html
    assert len(html.encode()) < 500_000


def test_the_gates_verdict_comes_first(odd: Made) -> None:
    decision = {
        "verdict": "hold",
        "summary": "failed: minimum_accuracy",
        "rules": [{"rule": "minimum_accuracy", "outcome": "fail", "reason": "0.98996 is below <b>0.99</b>", "remedy": "4 more right"}],
        "environment": "prod",
        "strategy": "quality",
        "actor": "ann",
        "reason": "failed: minimum_accuracy",
    }
    page = Page(render(*odd, decision, "20260102-030405-0123456789ab"))
    position = {words: page.text.index(words) for words in ("Hold", "0.98996 is below <b>0.99</b>", "Macro F1", "Confusion matrix")}
    assert sorted(position, key=lambda words: position[words]) == list(position)
    assert "would change it: 4 more right" in page.text
    assert "environment prod · strategy quality · asked for by ann" in page.text
    assert page.text.count("failed: minimum_accuracy") == 1
    assert "20260102-030405-0123456789ab" in page.text


def test_a_decision_as_the_ledger_keeps_it_is_shown_by_its_rules(odd: Made) -> None:
    reasons = ["minimum_accuracy: pass: accuracy 0.98 meets 0.9", "champion: skipped: no version: none serves", "in other words"]
    html = render(*odd, {"verdict": "promote", "summary": "all rules passed", "reasons": reasons})
    assert 'class="banner good"' in html
    assert "accuracy 0.98 meets 0.9" in html
    assert "no version: none serves" in html
    assert "in other words" in html


def test_without_a_verdict_the_page_says_so(odd: Made, many: Made) -> None:
    assert "The gate has not judged it yet" in render(*odd)
    assert "not judged yet" in render(*many)


def test_the_same_evaluation_gives_the_same_page(odd: Made) -> None:
    assert render(*odd) == render(*odd)


@pytest.mark.parametrize(
    ("value", "n", "text"),
    [(0.98996, 100_000, "98.996%"), (0.9999, 10_000, "99.99%"), (0.99, 100, "99.0%"), (1.0, 7, "100.0%"), (None, 10, "–")],
)
def test_percentages_have_the_digits_that_tell_one_picture(value: float | None, n: int, text: str) -> None:
    assert percent(value, n) == text


def test_what_is_not_all_is_never_shown_as_all() -> None:
    assert [figure(value) for value in (1.0, 0.99998, 0.5, None, 3.2)] == ["1.0000", ">0.9999", "0.5000", "–", "3.2000"]
    assert [whole_percent(share) for share in (1.0, 0.9999, 0.997, 0.5, 0.001)] == ["100", "99.9", "99.7", "50", "·"]


def test_differences_have_their_sign() -> None:
    assert [signed(value, 2) for value in (0.014, -0.5, 0.001, -0.001, None)] == ["+0.01", "−0.50", "±0.00", "±0.00", "–"]


@pytest.mark.parametrize("home", [{"HOME": "/nowhere/at/all"}, {}])
def test_plots_are_drawn_without_a_home_to_write_to(home: dict[str, str], tmp_path: Path) -> None:
    code = "from components.report.plots import coverage_plot as c; c([]); import matplotlib; print(matplotlib.get_cachedir())"
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), **home}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (ran.returncode, ran.stderr) == (0, "")
    if home:
        assert ran.stdout.strip().startswith(str(tmp_path))


@pytest.fixture
def browser(tmp_path: Path) -> list[str]:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        pytest.skip("needs Chromium")
    quiet = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
    return [found, "--headless", *quiet.split(), "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]


MEASURE = """<body><script>
const frame = document.createElement('iframe');
frame.style = 'border: 0; height: 900px; width: {width}px';
frame.srcdoc = {html};
frame.onload = () => {{
  const page = frame.contentDocument, room = page.documentElement.clientWidth;
  const out = [...page.querySelectorAll('body *')].filter(e => {{
    const box = e.getBoundingClientRect();
    return !e.parentElement.closest('.scroll') && !e.closest('svg') && (box.right > room + 1 || box.left < -1);
  }});
  const wide = page.documentElement.scrollWidth - room;
  document.title = `width ${{wide}} outside ${{out.map(e => e.outerHTML.slice(0, 80)).join() || 'none'}}`;
}};
document.body.append(frame);
</script>"""
"""Shows a page in a frame, as the Kubeflow UI does, and says in its own title what sticks out."""


@pytest.mark.integration
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("which", ["odd", "many"])
def test_nothing_sticks_out_of_the_page_in_a_browser(
    width: int, which: str, browser: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    html = render(*request.getfixturevalue(which))
    (tmp_path / "page.html").write_text(MEASURE.format(width=width, html=json.dumps(html).replace("</", "<\\/")), "utf-8")
    command = [*browser, "--window-size=1400,2000", "--dump-dom", f"file://{tmp_path}/page.html"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout
    assert re.findall(r"<title>(.*?)</title>", dom, re.DOTALL) == ["width 0 outside none"]


def test_the_learning_curves_are_drawn_and_what_would_help_is_said(odd: Made) -> None:
    history = [Epoch(k, 1 / k, 1.2 / k if k < 3 else None, 0.5 + 0.1 * k if k < 3 else None, 1e-3, 2.0) for k in (1, 2, 3)]
    curves = LearningCurves(history=history, best_epoch=2, stop_reason="all epochs were run", advice="set epochs=9")
    evaluation, predictions = odd
    shown = render(evaluation.model_copy(update={"training": curves}), predictions)
    for html in (shown, render_training("<b>", curves)):
        assert "set epochs=9" in html
        assert "The weights of epoch 2 were kept" in html
        assert html.count('id="learning-') > 10
        assert "0.7000" in Page(html).text
    assert "<b>:" not in render_training("<b>", curves)
    assert "learning-" not in render(evaluation, predictions)


def test_an_evaluation_holds_the_curves_of_the_models_training(tmp_path: Path) -> None:
    labels = np.arange(20) % 2
    made.write_dataset(tmp_path / "data", labels, ["a", "b"])
    model = made.write_model(tmp_path / "model", made.softmax(np.eye(2)[labels] * 5), ["a", "b"])
    history = [Epoch(1, 0.5, 0.4, 0.9, 1e-3, 2.0)]
    TrainingRecord(history=history, best_epoch=1, stop_reason="all epochs were run", versions={}).save(model)
    evaluate(tmp_path / "data", model, tmp_path / "out")
    Evaluation.model_validate(json.loads((tmp_path / "out" / "evaluation.json").read_text("utf-8")))  # as the gate reads it
    stored = Evaluation.load(tmp_path / "out").training
    assert stored is not None
    assert stored.history == history


@pytest.mark.parametrize("apart", [timedelta(seconds=160), timedelta(minutes=170), timedelta(days=3), timedelta(days=900)])
def test_versions_over_time_are_drawn_without_a_warning_however_far_apart_they_are(apart: timedelta) -> None:
    first = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "<svg" in history_plot("accuracy", [first, first + apart], {"accuracy": [0.9, 0.95]}, [True, False], "share")
