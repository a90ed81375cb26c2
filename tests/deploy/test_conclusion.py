"""How a run that deploys ends: its outcome from the ledger, and the webhook that is told of it."""

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from components.classifier.errors import UsageError
from components.deploy.component import conclude_run
from components.deploy.conclusion import UI, WEBHOOK, Outcome, conclude, conclude_and_notify, notify
from components.deploy.request import DeployRequest
from components.deploy.step import deploy
from components.registry import Registry
from tests.gate.cases import good
from tests.gate.versions import publish, registry_in
from tests.pipelines.runs import penstock
from tests.registry.test_signing import key_pair


class Webhook(http.server.ThreadingHTTPServer):
    """Answers with the codes that it was given, the last one again and again, and keeps what was posted."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.codes = [200]
        self.texts: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/services/secret"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        code = self.server.codes.pop(0) if len(self.server.codes) > 1 else self.server.codes[0]
        if code == 200:
            self.server.texts.append(body["text"])
        self.send_response(code)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    with Webhook() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv(WEBHOOK, server.url)
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return registry_in(tmp_path)


@pytest.fixture
def versions(registry: Registry, tmp_path: Path) -> list[str]:
    return [publish(registry, tmp_path / f"model{day}", good(), day=day)[0] for day in (1, 2)]


def request(version: str, run: str) -> DeployRequest:
    return DeployRequest(version, "manual", None, "dev", "ann", "needed", "local", run=run)


def test_the_outcome_is_what_the_ledger_says_of_the_run(registry: Registry, versions: list[str]) -> None:
    first, second = versions
    deploy(registry, request(first, "one"))
    registry.ledger.append(request(second, "two").draft_failure("the pod crashed"))
    registry.ledger.append(request(second, "two").draft_return(first, "the pod crashed"))
    outcomes = {
        run: conclude(registry, request(version, run), state)
        for run, version, state in (
            ("one", first, "COMPLETE"),
            ("two", second, "FAILED"),
            ("three", second, "RUNNING"),
            ("four", first, "SUCCEEDED"),
        )
    }
    assert {run: (it.decision, it.version, it.champion) for run, it in outcomes.items()} == {
        "one": ("deployed", first, first),
        "two": ("failed", second, first),
        "three": ("failed", second, first),
        "four": ("unchanged", first, first),
    }
    assert outcomes["two"].headline == f"digits: {second} was not deployed: the pod crashed ({first} serves)"
    assert "ended as RUNNING before anything was recorded" in outcomes["three"].reason


def test_a_run_that_published_nothing_and_succeeded_found_nothing_to_train(
    registry: Registry, versions: list[str], webhook: Webhook
) -> None:
    deploy(registry, request(versions[0], "one"))
    outcome = conclude(registry, request("", "two"), "SUCCEEDED")
    assert outcome.headline == f"digits: nothing was trained: data, settings and code are those of the last run ({versions[0]} serves)"
    assert "address" not in outcome.markdown()
    assert notify(outcome) == "nobody is notified: nothing has changed"
    assert webhook.texts == []
    assert conclude(registry, request("", "two"), "FAILED").decision == "failed"


def test_a_webhook_gets_one_line_that_is_safe_in_slack(webhook: Webhook) -> None:
    outcome = Outcome("digits", "held", "v2", "v1", "accuracy <0.9 & falling", link="https://kubeflow.example/#/runs/details/1")
    assert notify(outcome) == "the webhook is notified"
    assert webhook.texts == [
        "digits: v2 was held: accuracy &lt;0.9 &amp; falling (v1 serves) <https://kubeflow.example/#/runs/details/1|the run>"
    ]


def test_a_webhook_that_is_busy_is_asked_again(webhook: Webhook) -> None:
    webhook.codes = [503, 200]
    assert notify(Outcome("digits", "deployed", "v1", "v1", "")) == "the webhook is notified"
    assert len(webhook.texts) == 1


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/services/secret", "not an address/secret"])
def test_a_webhook_that_fails_is_said_without_its_address_and_nothing_else_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEBHOOK, address)
    said = notify(Outcome("digits", "deployed", "v1", "v1", ""))
    assert said.startswith("warning: the webhook was not notified: ")
    assert "secret" not in said


def test_a_webhook_that_refuses_does_not_fail_the_step(
    webhook: Webhook, registry: Registry, versions: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    webhook.codes = [404]
    deploy(registry, request(versions[0], "one"))

    class Page:
        path = str(tmp_path / "summary.md")

    class Status:
        state = "COMPLETE"

    where = {"store": registry.store.url, "name": "digits", "environment": "dev", "target": "local", "namespace": ""}
    outcome = conclude_run.python_func(status=Status, summary=Page, version=versions[0], actor="ann", run="one", **where)
    assert outcome == "deployed"
    assert "warning: the webhook was not notified: it answers 404" in capsys.readouterr().out
    assert Path(Page.path).read_text().startswith(f"# digits: {versions[0]} serves")


def test_an_end_that_nobody_can_look_at_is_told_too_and_fails(
    webhook: Webhook, registry: Registry, versions: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    with pytest.raises(UsageError) as raised:
        conclude_and_notify(registry, replace(request(versions[0], "one"), target="kserve"), "FAILED")
    assert webhook.texts == [f"digits: {versions[0]} may or may not serve, look at it: {raised.value}"]


def test_versions_that_are_not_trusted_do_not_hide_the_runs_own(
    registry: Registry, versions: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = key_pair(tmp_path, "ours")
    monkeypatch.setenv("PENSTOCK_SIGNING_KEY", str(private))
    registry.ledger.append(request(versions[0], "before").draft_hold("there were no keys yet"))
    monkeypatch.setenv("PENSTOCK_VERIFY_KEY", str(public))
    outcome = conclude(registry, request("", "another"), "FAILED")
    assert (outcome.decision, outcome.version) == ("failed", "")


def test_what_was_asked_for_by_another_word_than_a_name_has_no_address(registry: Registry, versions: list[str]) -> None:
    outcome = conclude(registry, request("previous", "one"), "FAILED")
    assert outcome.headline.startswith("digits: previous was not deployed: the run ended as FAILED")
    assert "models/digits/previous" not in outcome.markdown()


def test_a_deployment_that_fails_is_told_by_the_pipelines_end(
    webhook: Webhook, registry: Registry, versions: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(UI, "http://kubeflow/")
    registry.store.replace(f"models/digits/{versions[0]}/golden.npz", b"not what was published")
    done = penstock(
        "run", "deployment", "--set", f"version={versions[0]}", "--set", "actor=ann", "--set", "reason=try", "--store", registry.store.url,
        "--name", "digits", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 1
    assert [step["state"] for step in done.json["steps"]][-2:] == ["failed", "succeeded"]
    (text,) = webhook.texts
    assert text.startswith(f"digits: {versions[0]} was not deployed: the run ended as FAILED")
    assert "<http://kubeflow/#/runs/details/" in text
