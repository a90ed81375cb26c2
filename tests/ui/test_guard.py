"""Other sites' pages cannot read the server on this machine, nor write through it."""

import pytest
from fastapi.testclient import TestClient

from pipelines.ui import guard
from pipelines.ui.app import create_app
from tests.ui.conftest import Site

OURS = "http://127.0.0.1:8008"


@pytest.mark.parametrize("host", ["127.0.0.1:8008", "localhost:8008", "[::1]:8008", "192.168.1.7", "models.example:8008", "MODELS.example"])
def test_addresses_localhost_and_the_given_name_are_answered(host: str) -> None:
    assert guard.problem("GET", {"host": host}, {"Models.example"}) == ""


@pytest.mark.parametrize("host", ["evil.example:8008", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::1", "a@evil.example"])
def test_a_name_that_was_made_to_lead_here_is_refused(host: str, client: TestClient) -> None:
    assert "is not served here" in guard.problem("GET", {"host": host}, {"models.example"})
    if host:
        assert client.get("/", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("origin", [None, "null", "http://[", "http://evil.example", "http://127.0.0.1:9999", "http://localhost:8008"])
def test_a_label_that_another_site_sends_is_refused(origin: str | None, client: TestClient, made: Site) -> None:
    (first, *_) = made.stored.queue("digits").entries()
    headers = {"origin": origin} if origin else {}
    for path, data in (("label", {"picture": first.id, "label": "3"}), ("undo", {})):
        assert client.post(f"/review/digits/{path}", data=data, headers=headers).status_code == 403
    assert {entry.labels.state for entry in made.stored.queue("digits").entries()} == {"unlabelled"}


def test_every_answer_forbids_scripts_of_others_and_frames(client: TestClient) -> None:
    for path in ("/", "/nowhere", "/static/label.js", "/runs/20260102-030405-aaaa/log.txt"):
        headers = client.get(path).headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert (policy["default-src"], policy["script-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "'none'")
        assert headers["x-content-type-options"] == "nosniff"


def test_only_labels_are_written(made: Site) -> None:
    app = create_app(made.stored, "ann")
    writing = {route.path for route in app.routes if getattr(route, "methods", set()) - {"GET", "HEAD"}}  # type: ignore[attr-defined]
    assert writing == {"/review/{name}/label", "/review/{name}/undo"}
