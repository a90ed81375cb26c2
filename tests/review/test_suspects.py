"""Labels that may be wrong: a real evaluation finds them, and a person labels them on the review page."""

import csv
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from components.bundle import dataset
from components.bundle.evaluation import Evaluation
from components.bundle.mistakes import most_suspect, wrong_pictures
from components.bundle.predictions import Predictions
from components.classifier.decode import decode
from components.classifier.errors import DataError, UsageError
from components.evaluate.evaluation import evaluate
from components.registry import Registry
from components.registry.publication import publish_directory
from components.review.export import read_labels, write_suspects
from components.storage import open_store
from pipelines.cli import app
from tests import tiny

FLIPPED = 40
Evaluated = tuple[Path, np.ndarray]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """A model of 1,200 digits, evaluated on the 597 others, 40 of which have a wrong label; returns the folder and their rows."""
    root, random = tmp_path_factory.mktemp("suspects"), np.random.default_rng(3)
    images, labels = tiny.digits()
    rest = np.random.default_rng(0).permutation(len(labels))[1200:]
    flipped = random.permutation(len(rest))[:FLIPPED]
    given = labels[rest]
    given[flipped] = (given[flipped] + random.integers(1, 10, FLIPPED)) % 10
    counts = {part: dict.fromkeys(tiny.CLASSES, 0) for part in dataset.SPLITS}
    info = dataset.DatasetInfo(source="digits", classes=tiny.CLASSES, shape=(8, 8, 1), counts=counts, seed=0)
    none = (images[:0], labels[:0])
    files = {"test": {"file": [f"digit-{row}.png" for row in rest]}}
    dataset.write(root / "data", info, {"train": none, "validation": none, "test": (images[rest], given)}, files)  # type: ignore[arg-type]
    digest = dataset.Dataset.load(root / "data").info.digest
    tiny.write_bundle(root / "model", samples=1200, dataset_digest=digest)
    evaluate(root / "data", root / "model", root / "model")
    return root, flipped


def loaded(root: Path) -> tuple[Evaluation, Predictions]:
    return Evaluation.load(root / "model"), Predictions.load(root / "model")


def test_pictures_with_a_wrong_label_are_the_most_suspect_ones(evaluated: Evaluated) -> None:
    root, flipped = evaluated
    ranked = [wrong.row for wrong in most_suspect(wrong_pictures(*loaded(root)))]
    assert len(ranked) > FLIPPED + 5
    assert len(set(ranked[:FLIPPED]) & set(flipped)) >= 0.9 * FLIPPED
    assert len(set(ranked[:50]) & set(flipped)) >= 0.95 * FLIPPED


def test_the_folder_holds_the_most_suspect_pictures_their_files_and_labels_so_far(evaluated: Evaluated, tmp_path: Path) -> None:
    root, _ = evaluated
    evaluation, predictions = loaded(root)
    report = write_suspects("v1", evaluation, predictions, tmp_path / "out", 50)
    assert (report.pictures, report.missing) == (50, [])
    with (tmp_path / "out" / "labels.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    first = most_suspect(wrong_pictures(evaluation, predictions))[0]
    assert [rows[0][name] for name in ("picture", "label", "file", "label_so_far", "version")] == [
        f"test-{first.row:06d}.png", "", first.file, first.label, "v1",
    ]  # fmt: skip
    test = dataset.Dataset.load(root / "data").split("test")
    for row in rows:
        number = int(row["picture"][5:11])
        np.testing.assert_array_equal(decode((tmp_path / "out" / "pictures" / row["picture"]).read_bytes()), test.images[number])
        assert tiny.CLASSES[test.labels[number]] == row["label_so_far"] != row["predicted"]


def test_the_page_offers_label_and_prediction_and_does_not_say_which_is_which(evaluated: Evaluated, tmp_path: Path) -> None:
    root, _ = evaluated
    write_suspects("v1", *loaded(root), tmp_path / "out", 50)
    (data,) = re.findall(r'id="data">(.*?)</script>', (tmp_path / "out" / "index.html").read_text("utf-8"))
    for card in json.loads(data)["pictures"]:
        assert len(card["likely"]) == 3
        assert {card["columns"]["label_so_far"], card["columns"]["predicted"]} < set(card["likely"])
        assert card["likely"] == sorted(card["likely"])
        assert card["classes"] == tiny.CLASSES


def test_labels_of_test_pictures_are_not_taken_into_the_queue(evaluated: Evaluated, tmp_path: Path) -> None:
    root, _ = evaluated
    write_suspects("v1", *loaded(root), tmp_path / "out", 5)
    with pytest.raises(DataError, match="test pictures, which are not in the review queue"):
        read_labels(tmp_path / "out")


def test_a_picture_that_the_version_does_not_keep_is_named_and_an_old_version_is_refused(evaluated: Evaluated, tmp_path: Path) -> None:
    evaluation, predictions = loaded(evaluated[0])
    first = most_suspect(wrong_pictures(evaluation, predictions))[0]
    assert predictions.thumbnail_rows is not None
    keep = predictions.thumbnail_rows != first.row
    fewer = replace(predictions, thumbnails=predictions.thumbnails[keep], thumbnail_rows=predictions.thumbnail_rows[keep])  # type: ignore[index]
    report = write_suspects("v1", evaluation, fewer, tmp_path / "out", 50)
    assert (report.pictures, report.missing) == (49, [first.file])
    with pytest.raises(UsageError, match="v1 is too old to say which labels are suspect; evaluate it again"):
        write_suspects("v1", evaluation, replace(predictions, label_quality=None), tmp_path / "old", 50)
    with pytest.raises(UsageError, match="no label is suspect"):
        write_suspects("v1", evaluation, replace(predictions, thumbnails=None), tmp_path / "none", 50)


def test_the_command_exports_fifty_suspects_of_a_version(evaluated: Evaluated, tmp_path: Path) -> None:
    registry = Registry(open_store(str(tmp_path / "store")), "digits")
    version = publish_directory(registry, evaluated[0] / "model", run="run-1").version
    options = ["--suspect", "--version", version, "--store", str(tmp_path / "store"), "--name", "digits"]
    shown = CliRunner().invoke(app, ["review", "export", str(tmp_path / "out"), *options])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith(f"50 test pictures of {version} in {tmp_path / 'out'}")
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 50
    found = CliRunner().invoke(app, ["review", "export", str(tmp_path / "few"), "--limit", "7", "--json", *options])
    assert sum(json.loads(found.stdout)["classes"].values()) == 7
    both = CliRunner().invoke(app, ["review", "export", str(tmp_path / "both"), "--labelled", *options])
    assert isinstance(both.exception, UsageError)


@pytest.mark.integration
def test_a_person_labels_all_of_them_in_a_browser_and_saves_a_table_of_what_to_correct(evaluated: Evaluated, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("needs Chromium")
    write_suspects("v1", *loaded(evaluated[0]), tmp_path / "out", 50)
    clicks = """<script>
    document.querySelectorAll("article").forEach((card) => card.querySelector("button").click());
    const shown = document.getElementById("state").textContent;
    URL.createObjectURL = (file) => { file.text().then((text) => document.title = shown + "\\n" + text); return "#"; };
    document.getElementById("save").click();
    </script></html>"""
    page = tmp_path / "out" / "index.html"
    page.write_text(page.read_text("utf-8").replace("</html>", clicks), "utf-8")
    quiet = [
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command = [browser, "--headless", *quiet, "--virtual-time-budget=5000", "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout
    ((title,)) = re.findall(r"<title>(.*?)</title>", dom, re.DOTALL)
    state, *lines = title.splitlines()
    assert state == "50 of 50 pictures labelled"
    rows = list(csv.DictReader(lines))
    assert len(rows) == 50
    assert all(row["label"] in tiny.CLASSES and row["file"].startswith("digit-") and row["label_so_far"] for row in rows)
    assert any(row["label"] != row["label_so_far"] for row in rows)
