"""The end of a run that deploys: what served before is back if the deploy step was cut off, and people are told the outcome."""

import html
import itertools
import os
from dataclasses import dataclass, replace

import requests
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential

from components.bundle.files import REPORT
from components.bundle.markdown import escape, table
from components.classifier.errors import IntegrityError, PenstockError, first_line
from components.deploy.request import DeployRequest
from components.integrations import steps
from components.integrations.observe import observed
from components.registry import Record, Registry
from components.registry.ledger import champion_of
from components.registry.manifest import VERSION_PATTERN
from components.storage.nearby import requests_proxies

WEBHOOK, UI = "PENSTOCK_WEBHOOK_URL", "PENSTOCK_KFP_UI"
"""Environment variables: where to post the outcome, and the address of Kubeflow's UI, for a link to the run."""
_SECONDS = (5.0, 15.0)
_RECENT = 50
"""Versions among which a run's own is looked for, newest first."""
SKIPPED, UNKNOWN = "skipped", "unknown"
_DONE = {"deployed": "deployed", "rolled_back": "deployed", "held": "held", "awaiting": "awaiting", "failed": "failed"}


@dataclass(frozen=True)
class Outcome:
    """What came of a run, for people."""

    name: str
    """The model's."""
    decision: str
    """deployed, unchanged, held, awaiting (approval), failed, skipped (the run found nothing to train), or unknown: nobody could look."""
    version: str
    champion: str
    """Who serves now; empty while nothing does."""
    reason: str
    address: str = ""
    """Where the version's files are."""
    link: str = ""
    """The run's page, where the UI's address is known."""

    @property
    def headline(self) -> str:
        """The outcome in one line."""
        about = f"{self.name}: {self.version or ('nothing' if self.decision == SKIPPED else 'the version')} {_SAID[self.decision]}"
        serves = "" if self.decision == UNKNOWN else f" ({self.champion or 'nothing'} serves)"
        return f"{about}{f': {self.reason}' if self.reason else ''}{serves}"

    def markdown(self) -> str:
        """The outcome as a page of Kubeflow's UI."""
        rows = [("version", self.version), ("outcome", self.decision), ("reason", self.reason), ("serves now", self.champion)]
        if self.address:
            rows += [("address", self.address), ("report", f"{self.address}{REPORT}, or penstock report {self.version}")]
        return "\n".join([f"# {escape(self.headline)}", "", *table(("", ""), rows), ""])


_SAID = {
    "deployed": "serves",
    "unchanged": "served already",
    "held": "was held",
    "awaiting": "awaits approval (`penstock models approve`)",
    "failed": "was not deployed",
    SKIPPED: "was trained",
    UNKNOWN: "may or may not serve, look at it",
}


def conclude_and_notify(registry: Registry, request: DeployRequest, state: str) -> Outcome:
    """Conclude, print the outcome and notify people of it; those are told too when it cannot be known, and the error is raised."""
    try:
        outcome = conclude(registry, request, state)
    except PenstockError as error:
        doubt = Outcome(registry.name, UNKNOWN, request.version, "", first_line(error), link=_link(request.run))
        print(doubt.headline, notify(doubt), sep="\n")
        raise
    print(outcome.headline, notify(outcome), sep="\n")
    return outcome


@observed(steps.conclude)
def conclude(registry: Registry, request: DeployRequest, state: str) -> Outcome:
    """Put back what served before where the run's deploy step was cut off, and return the run's outcome.

    `request`: its version is the one that was asked for, or nothing where the run trained it. `state`: how the steps before ended,
    as Kubeflow says. Raises UsageError and StoreError where the cluster or the store cannot be reached.
    """
    if not request.version:
        request = replace(request, version=_published_by(registry, request.run))
    undone = ""
    if request.target == "kserve":
        from components.deploy.kserve.rollout import put_back_unconfirmed

        undone = put_back_unconfirmed(registry, request)
    outcome = outcome_of(registry.name, registry.ledger.records(), request, state)
    address = registry.uri(outcome.version) if VERSION_PATTERN.fullmatch(outcome.version) else ""
    return replace(outcome, reason=undone or outcome.reason, address=address, link=_link(request.run))


def _published_by(registry: Registry, run: str) -> str:
    for version in itertools.islice(registry.newest(), _RECENT) if run else ():
        try:
            if registry.get(version).manifest.run == run:
                return version
        except IntegrityError:  # another's, such as one from before there were keys; the run's own was written just now
            continue
    return ""


def outcome_of(name: str, records: list[Record], request: DeployRequest, state: str) -> Outcome:
    """Return what the ledger's records, and the state in which the steps ended, say about a run."""
    mine = [record for record in records if request.run and record.run == request.run]
    failed = next((record for record in mine if record.action == "failed"), None)  # what was put back comes after it
    last = failed or next((record for record in reversed(mine) if record.action in _DONE), None)
    champion = champion_of(records)
    if last is not None:
        return Outcome(name, _DONE[last.action], last.version, champion, last.reason)
    if state in {"COMPLETE", "SUCCEEDED"} and not request.version:
        return Outcome(name, SKIPPED, "", champion, "data, settings and code are those of the last run")
    if state in {"COMPLETE", "SUCCEEDED"}:
        return Outcome(name, "unchanged", request.version, champion, "")
    return Outcome(
        name, "failed", request.version, champion, f"the run ended as {state} before anything was recorded; its steps' logs say why"
    )


def notify(outcome: Outcome) -> str:
    """Post an outcome to the webhook, if one is configured; returns what happened, in one line, and never fails.

    The body is `{"text": ...}`, which Slack, Mattermost, Rocket.Chat and Google Chat read.
    """
    address = os.environ.get(WEBHOOK, "").strip()
    if outcome.decision == SKIPPED:
        return "nobody is notified: nothing has changed"
    if not address:
        return f"nobody is notified: {WEBHOOK} is not set"
    link = f" <{outcome.link}|the run>" if outcome.link else ""
    try:
        _post(address, {"text": html.escape(outcome.headline, quote=False) + link})
    except requests.HTTPError as error:
        return f"warning: the webhook was not notified: it answers {error.response.status_code}; look at {WEBHOOK}"
    except (requests.RequestException, ValueError) as error:  # its text would tell the address, which is a secret
        return f"warning: the webhook was not notified: {type(error).__name__}; look at {WEBHOOK}"
    return "the webhook is notified"


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, requests.HTTPError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, requests.ConnectionError | requests.Timeout)


@retry(retry=retry_if_exception(_may_pass), stop=stop_after_attempt(3), wait=wait_exponential(max=10), reraise=True)
def _post(address: str, body: dict[str, str]) -> None:
    answer = requests.post(address, json=body, timeout=_SECONDS, allow_redirects=False, proxies=requests_proxies(address))
    answer.raise_for_status()


def _link(run: str) -> str:
    address = os.environ.get(UI, "").strip().rstrip("/")
    return f"{address}/#/runs/details/{run}" if address and run else ""
