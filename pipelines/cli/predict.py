"""`penstock predict`: classifies pictures with a running predictor."""

import base64
import csv
import glob
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from components.classifier.errors import InferenceError, PenstockError, UsageError
from pipelines.cli.output import JsonOption, console, print_json

if TYPE_CHECKING:
    from components.inference_client import InferenceClient

DEFAULT_URL = "http://127.0.0.1:8080"
_SECONDS = 60.0


@dataclass(frozen=True)
class Prediction:
    """The prediction for one file, or why it was refused."""

    file: str
    answer: dict[str, Any]
    version: str = ""
    error: str = ""

    def row(self) -> dict[str, Any]:
        """The fields that JSON shows."""
        return {"file": self.file, "error": self.error} if self.error else {"file": self.file, **self.answer, "model_version": self.version}


def predict(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE…", help="Pictures of any size and usual format, folders of them, or globs.")
    ],
    name: Annotated[
        str, typer.Option("--name", envvar="PENSTOCK_NAME", help="The model's name.", show_default="the server's only model")
    ] = "",
    url: Annotated[str, typer.Option(envvar="PENSTOCK_URL", help="Where the predictor answers, such as localhost:8080.")] = DEFAULT_URL,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Less confident predictions need review; default: the server's.")
    ] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Show every class' probability.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, one line per picture.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Classify pictures with the running predictor (`penstock serve`, or a KServe URL).

    Example: `penstock predict seven.png --probabilities`
    """
    from components.inference_client import InferenceClient

    pictures = [picture for path in images for picture in _pictures(path)]
    url = url if "://" in url else f"http://{url}"
    options = {"return_probabilities": probabilities} | ({} if threshold is None else {"threshold": threshold})
    client = InferenceClient(url, name or _served(url), seconds=_SECONDS)
    found = [_ask(client, path, options) for path in pictures]
    if as_json:
        print_json([prediction.row() for prediction in found])
    elif as_csv:
        _print_csv(found)
    else:
        console.print(_table(found, probabilities))
    if failed := [prediction for prediction in found if prediction.error]:
        raise PenstockError(f"{len(failed)} of {len(found)} pictures were refused ({failed[0].file}: {failed[0].error})")


def _pictures(path: Path) -> list[Path]:
    """A file itself, the pictures below a folder, or what a glob matches, in order; raises UsageError for none, and StoreError."""
    from components.readers.listing import looks_like_picture
    from components.storage.files import explain_os_errors

    with explain_os_errors(f"cannot look for {path}"):
        if path.is_file():
            return [path]
        found = sorted(path.rglob("*") if path.is_dir() else map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207 - may be absolute
        pictures = [file for file in found if file.is_file() and looks_like_picture(file.name)]
    if not pictures:
        wrong = f"no picture in {path}" if path.is_dir() else f"no such file: {path}"
        raise UsageError(f"{wrong}; give the paths of pictures, folders or globs")
    return pictures


def _print_csv(found: list[Prediction]) -> None:
    classes = list(dict.fromkeys(name for prediction in found for name in prediction.answer.get("probabilities", {})))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    columns = ("label", "confidence", "needs_review", "familiarity", "unfamiliar")
    writer.writerow(["file", *columns, "model_version", "error", *(f"probability_{name}" for name in classes)])
    for prediction in found:
        answer = prediction.answer
        known = [answer.get(key, "") for key in columns]
        each = [answer.get("probabilities", {}).get(name, "") for name in classes]
        writer.writerow([prediction.file, *known, prediction.version, prediction.error, *each])


def _served(url: str) -> str:
    """The only model that the server has; raises PenstockError when it has several, or does not answer."""
    from components.inference_client import InferenceClient

    try:
        names = InferenceClient(url, "", seconds=_SECONDS).models()
    except InferenceError as error:
        raise _no_predictor(error) from error
    if len(names) != 1:
        raise UsageError(f"{url} serves {', '.join(names) or 'no model'}; give the model by --name")
    return names[0]


def _no_predictor(error: InferenceError) -> PenstockError:
    if not error.status:
        return PenstockError(f"no predictor answers: {error}; start one with `penstock serve`, or give --url")
    return PenstockError(f"{error}; this is not a Penstock predictor, give its address by --url")


def _ask(client: "InferenceClient", path: Path, options: dict[str, Any]) -> Prediction:
    """Send one picture; returns the server's refusal as the picture's own, and raises PenstockError for anything worse."""
    from components.storage.files import explain_os_errors

    with explain_os_errors(f"cannot read {path}"):
        content = path.read_bytes()
    try:
        document = client.predict([{"b64": base64.b64encode(content).decode()}], **options)
        return Prediction(str(path), document["predictions"][0], document["model_version"])
    except InferenceError as error:
        if not error.status or not error.detail:
            raise _no_predictor(error) from error
        if error.status in (404, 405):
            raise PenstockError(f"{error.detail}; give the model by --name") from error
        return Prediction(str(path), {}, error=error.detail.removeprefix("instances[0]: "))


def _table(found: list[Prediction], probabilities: bool) -> Table:
    columns = [Column(name, no_wrap=True) for name in ("picture", "label", "confidence")]
    table = Table(*columns, "", *([Column("probabilities", no_wrap=True)] if probabilities else []))
    for prediction in found:
        answer = prediction.answer
        if prediction.error:
            table.add_row(_ending(prediction.file), "", "", Text(prediction.error))
            continue
        review = "unfamiliar" if answer.get("unfamiliar") else "needs review" if answer["needs_review"] else ""
        row: list[str | Text] = [_ending(prediction.file), Text(answer["label"]), f"{answer['confidence']:.4f}", review]
        if probabilities:
            ranked = sorted(answer["probabilities"].items(), key=lambda item: -item[1])
            row.append(Text("\n".join(f"{value:.4f} {label}" for label, value in ranked)))
        table.add_row(*row, end_section=probabilities)
    return table


def _ending(file: str) -> Text:
    """The end of a long path: it tells pictures apart and leaves room for the prediction."""
    length = max(16, console.width // 3)
    return Text(file if len(file) <= length else "…" + file[1 - length :])
