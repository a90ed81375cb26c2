"""Where the environment names a proxy, what stays on this machine or in a cluster never goes there: no picture, no token, no key."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.classifier.errors import StoreError
from components.deploy.conclusion import WEBHOOK, Outcome, notify
from components.storage import open_store
from components.storage.nearby import is_nearby, requests_proxies
from pipelines.submit import Server, submit
from tests.pipelines.kubeflow_api import Kubeflow
from tests.pipelines.kubeflow_api import kubeflow as kubeflow
from tests.predictor.test_inference_client import Recorder, recording


@pytest.fixture(autouse=True)
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """A proxy that the environment names for everything."""
    with recording(Recorder(status=502)) as it:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, it.url)
            monkeypatch.setenv(name.lower(), it.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield it


@pytest.mark.parametrize("how", ["environment", "file"])
def test_a_store_nearby_is_asked_directly_and_another_by_the_proxy(
    proxy: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    def list_at(endpoint: str) -> None:
        (config := tmp_path / "config").write_text(f"[default]\nendpoint_url = {endpoint}\n" if how == "file" else "")
        for name, value in {"AWS_CONFIG_FILE": str(config), "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
            monkeypatch.setenv(name, value)
        if how == "environment":
            monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(StoreError):
            list(open_store("s3://models/penstock").list(""))

    with recording(Recorder(status=403)) as near:
        list_at(near.url)
        assert near.seen
        assert proxy.seen == []
    proxy.status = 403  # what is not tried again
    list_at("http://s3.example.com")
    assert proxy.seen


def test_a_webhook_nearby_is_told_directly_and_another_by_the_proxy(proxy: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Outcome("digits", "deployed", "v1", "v1", "")
    with recording(Recorder()) as near:
        monkeypatch.setenv(WEBHOOK, near.url)
        assert notify(outcome) == "the webhook is notified"
        assert len(near.seen) == 1
        assert proxy.seen == []
    proxy.status = 200
    monkeypatch.setenv(WEBHOOK, "http://hooks.example.com/services/secret")
    assert notify(outcome) == "the webhook is notified"
    assert [path for path, _ in proxy.seen] == ["http://hooks.example.com/services/secret"]


@pytest.mark.filterwarnings("ignore")
def test_kubeflow_behind_a_port_forward_is_asked_directly(proxy: Recorder, kubeflow: Kubeflow) -> None:
    assert submit("scoring", {}, Server(kubeflow.url, token="secret"), experiment="penstock").run_id == "r-1"
    assert proxy.seen == []


@pytest.mark.parametrize("name", ["minio", "minio.minio.svc", "minio.minio.svc.cluster.local", "minio.minio.svc.cluster.local."])
def test_names_of_a_cluster_are_nearby(name: str) -> None:
    assert is_nearby(f"http://{name}:9000")
    assert requests_proxies(f"http://{name}") == {"no_proxy": "*"}
    assert not is_nearby(f"http://{name.rstrip('.')}.example.com")
