"""The pages of `penstock ui`, from a store with versions that were really evaluated."""

import re
from html.parser import HTMLParser
from pathlib import Path
from posixpath import normpath
from urllib.parse import urljoin

import pytest
from fastapi.testclient import TestClient

from components.registry import Record, Registry
from components.storage import open_store
from components.storage.local import LocalStore
from pipelines.ui.app import create_app
from pipelines.ui.stored import Stored
from tests.ui.conftest import ODD, Site

ATTRIBUTES = {("a", "href"), ("img", "src"), ("script", "src"), ("link", "href")}


class Links(HTMLParser):
    """All addresses that a page leads to or loads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {value or "" for name, value in attrs if (tag, name) in ATTRIBUTES and not (value or "").startswith("data:")}


def test_every_page_that_is_linked_is_there_and_carries_no_markup_of_the_data(client: TestClient, made: Site) -> None:
    left, seen = ["/"], dict[str, str]()
    while left:
        path = left.pop()
        response = client.get(path)
        assert response.status_code == 200, path
        seen[path] = response.text
        if response.headers["content-type"].startswith("text/html"):
            assert ODD.split("&")[0] not in response.text, path
            links = {urljoin(path, link) for link in Links(response.text).found}
            left += [link.partition("#")[0] for link in links if link.partition("#")[0] not in {*seen, *left}]
    weak, good, held = made.versions
    wanted = ["/index.html", "/models/digits.html", "/models/digits/timeline.html", "/models/digits/live.html", "/runs.html"]
    wanted += [f"/models/digits/{version}.html" for version in made.versions]
    wanted += [f"/models/digits/{version}/report.html" for version in (weak, good)]
    wanted += [f"/compare/digits/{weak}/digits/{good}.html", f"/compare/digits/{good}/digits/{held}.html", "/review/digits/label.html"]
    assert set(wanted) - set(seen) == set()
    assert all(normpath(path) == path for path in seen)


def test_the_timeline_says_what_served_when_and_why(client: TestClient, made: Site) -> None:
    weak, good, held = made.versions
    text = client.get("/models/digits/timeline.html").text
    assert text.index(f"{good} from") > text.index(f"{weak} from")
    assert "the first one" in text
    assert "&lt;script&gt;alert" in text
    assert "minimum_accuracy: pass: accuracy 0.95 meets the floor 0.9" in text
    assert f"{good} goes on serving" in text
    assert "Not compared picture by picture" in client.get(f"/compare/digits/{good}/digits/{held}.html").text
    assert "Never." in client.get(f"/models/digits/{held}.html").text


def test_the_list_of_versions_marks_the_champion_and_draws_their_figures(client: TestClient, made: Site) -> None:
    text = client.get("/models/digits.html").text
    rows = re.findall(r'<td><a class="id"[^>]*>([^<]*)</a>(?: <span class="mark \w+">(\w+)</span>)?</td>', text)
    weak, good, held = made.versions
    assert rows == [(held, ""), (good, "champion"), (weak, "previous")]
    assert text.count("<svg ") == 2


def test_two_versions_are_compared_by_any_way_of_naming_them(client: TestClient, made: Site) -> None:
    weak, good, _ = made.versions
    answer = client.get("/compare.html", params={"first": f"digits/{weak[:8]}", "second": "digits/champion"})
    assert answer.url.path == f"/compare/digits/{weak}/digits/{good}.html"
    assert "The second is significantly better" in answer.text


def test_a_run_is_shown_with_its_error_its_parameters_and_its_log(client: TestClient) -> None:
    assert "no such folder" in client.get("/runs.html").text
    assert "&lt;script&gt;" in client.get("/runs/20260102-030405-aaaa.html").text
    log = client.get("/runs/20260102-030405-aaaa/log.txt")
    assert (log.text, log.headers["content-type"]) == (f"line\n{ODD}\n", "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/nowhere", 404, "/nowhere: there is no such page"),
        ("/models/cats.html", 404, "no model &#39;cats&#39;"),
        ("/models/No!.html", 400, "cannot name an InferenceService"),
        ("/models/digits/20260101-000000-000000000000.html", 404, "no version"),
        ("/compare.html?first=digits", 400, "NAME/VERSION"),
        ("/runs/x.html", 400, "no run &#39;x&#39;"),
        ("/review/digits.html?state=odd", 400, "a state is one of"),
        ("/review/digits/pictures/..%2F..%2Fx.png", 404, "no such page"),
        ("/review/digits/large/x.png.png", 400, "is not a picture of the review queue"),
    ],
)
def test_what_cannot_be_shown_is_a_page_with_one_line(client: TestClient, path: str, status: int, words: str) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    (line,) = re.findall(r"<p>(.*?)</p>", answer.text.split('id="main"')[1])
    assert words in line


def test_a_damaged_ledger_is_said_and_other_models_are_listed(client: TestClient, made: Site) -> None:
    store = open_store("memory://ui-damaged")
    for name in ("good", "bad"):
        store.create(f"models/{name}/20260101-000000-000000000000/x", b"")
    Registry(store, "good").ledger.append(Record(action="held", version="20260101-000000-000000000000", strategy="quality"))
    store.create("deployments/bad/000002.json", b"{}")
    text = TestClient(create_app(Stored("memory://ui-damaged"), "ann"), base_url="http://localhost").get("/").text
    assert "lacks record 000001" in text
    assert "held" in text


def test_what_never_changes_is_read_once(made: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[str]()
    chunks = LocalStore.chunks

    def counted(self: LocalStore, key: str) -> object:
        read.append(key)
        return chunks(self, key)

    monkeypatch.setattr(LocalStore, "chunks", counted)
    weak, good, _ = made.versions
    pages = ["/", "/models/digits.html", f"/models/digits/{good}/report.html", f"/compare/digits/{weak}/digits/{good}.html"]
    client = TestClient(create_app(made.stored, "ann"), base_url="http://127.0.0.1")
    for page in [*pages, "/review/digits.html", "/models/digits/live.html"]:
        client.get(page)
        first = len(read)
        assert client.get(page).status_code == 200
        assert {key.split("/")[0] for key in read[first:]} <= {"deployments"}, page  # the head of the ledger is looked at each time
    assert not [key for key in read if key.endswith(".onnx")]


def test_a_store_of_release_0_1_is_shown() -> None:
    old = Path(__file__).parents[1] / "fixtures" / "release_0_1" / "store"
    first, second = "20260102-030405-283e5dfa2d07", "20260202-030405-a8462a9d1fc6"
    client = TestClient(create_app(Stored(str(old)), "ann"), base_url="http://localhost")
    for path in ("models/digits", "models/digits/timeline", "models/digits/live", f"models/digits/{second}", "review/digits"):
        assert client.get(f"/{path}.html").status_code == 200, path
    assert "Two versions beside each other" in client.get(f"/compare/digits/{first}/digits/{second}.html").text
