"""`penstock predict`: asks the running predictor about pictures."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from components.classifier.errors import PenstockError, UsageError
from pipelines.cli.output import DEFAULT_NAME, JsonOption, NameOption, console, print_json

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "http://127.0.0.1:8080"
_SECONDS = 60.0


@dataclass(frozen=True)
class Prediction:
    """What the predictor said about one file, or why it said nothing."""

    file: str
    answer: dict[str, Any]
    version: str = ""
    error: str = ""

    def row(self) -> dict[str, Any]:
        """The fields that JSON shows."""
        return {"file": self.file, "error": self.error} if self.error else {"file": self.file, **self.answer, "model_version": self.version}


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Pictures, of any size and usual format.")],
    name: NameOption = DEFAULT_NAME,
    url: Annotated[str, typer.Option(envvar="PENSTOCK_URL", help="Where the predictor answers.")] = DEFAULT_URL,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Less confident predictions need a look; default: the server's.")
    ] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Show every class' probability.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Classify pictures with the running predictor (`penstock serve`, or a KServe URL).

    Example: `penstock predict seven.png --probabilities`
    """
    import httpx

    missing = [str(path) for path in images if not path.is_file()]
    if missing:
        raise UsageError(f"no such file: {', '.join(missing)}; give the paths of pictures")
    wishes: dict[str, Any] = {"return_probabilities": probabilities}
    if threshold is not None:
        wishes["threshold"] = threshold
    try:
        with httpx.Client(base_url=url, timeout=_SECONDS) as client:
            found = [_ask(client, name, path, wishes) for path in images]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise PenstockError(f"no predictor answers at {url} ({error}); start one with `penstock serve`, or give --url") from error
    if as_json:
        print_json([prediction.row() for prediction in found])
    else:
        console.print(_table(found, probabilities))
    if failed := [prediction for prediction in found if prediction.error]:
        raise PenstockError(f"{len(failed)} of {len(found)} pictures were refused ({failed[0].file}: {failed[0].error})")


def _ask(client: "httpx.Client", name: str, path: Path, wishes: dict[str, Any]) -> Prediction:
    body = {"instances": [{"b64": base64.b64encode(path.read_bytes()).decode()}], **wishes}
    response = client.post(f"/v1/models/{name}:predict", json=body)
    try:
        document = response.json()
        if response.is_success:
            return Prediction(str(path), document["predictions"][0], document.get("model_version", ""))
        message = str(document["error"]).removeprefix("instances[0]: ")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise PenstockError(
            f"{response.url} is no Penstock predictor (status {response.status_code}); give its address by --url"
        ) from error
    if response.status_code in (404, 405):
        raise PenstockError(f"{message}; give the model by --name")
    return Prediction(str(path), {}, error=message)


def _table(found: list[Prediction], probabilities: bool) -> Table:
    table = Table(Column("picture", no_wrap=True), "label", "confidence", "", *(["probabilities"] if probabilities else []))
    for prediction in found:
        answer = prediction.answer
        if prediction.error:
            table.add_row(_ending(prediction.file), "", "", Text(prediction.error))
            continue
        doubt = "needs review" if answer["needs_review"] else ""
        row: list[str | Text] = [_ending(prediction.file), Text(answer["label"]), f"{answer['confidence']:.4f}", doubt]
        if probabilities:
            ranked = sorted(answer["probabilities"].items(), key=lambda item: -item[1])
            row.append(", ".join(f"{label} {value:.3f}" for label, value in ranked[:5]))
        table.add_row(*row)
    return table


def _ending(file: str, length: int = 40) -> Text:
    """A path's end, which tells pictures apart, where the whole path would crowd out the answer."""
    return Text(file if len(file) <= length else "…" + file[1 - length :])
