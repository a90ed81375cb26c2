"""The static site is whole without a server, and the command writes or serves."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from components.classifier.errors import UsageError
from pipelines.cli import main
from pipelines.ui.export import write_site
from tests.ui.conftest import ODD, Site
from tests.ui.test_pages import Links


@pytest.fixture(scope="module")
def site(made: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("static") / "site"
    assert write_site(made.stored, folder) == len(list(folder.rglob("*.html"))) > 10
    return folder


def test_every_link_of_the_site_leads_to_a_file_in_it(site: Path) -> None:
    pages, reached = sorted(site.rglob("*.html")), {site / "index.html"}
    for page in pages:
        html = page.read_text("utf-8")
        assert ODD.split("&")[0] not in html
        for link in Links(html).found:
            address = urlsplit(urljoin(page.as_uri(), link))
            assert (address.scheme, address.query) == ("file", ""), f"{page}: {link}"
            assert Path(unquote(address.path)).is_file(), f"{page}: {link}"
            reached.add(Path(unquote(address.path)))
    assert set(pages) - reached == set()


def test_the_site_has_nothing_to_fill_in_and_no_script(site: Path) -> None:
    text = "".join(page.read_text("utf-8") for page in site.rglob("*.html"))
    assert not [tag for tag in ("<button", "<input", "<select", "<script", "label.html") if tag in text]


def test_a_folder_with_something_in_it_is_left_alone(made: Site, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(UsageError, match="exists already"):
        write_site(made.stored, tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]


@pytest.fixture
def penstock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: Site) -> Iterator[object]:
    """Run `penstock ui`; returns the exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["penstock", "ui", "--store", made.url, *arguments])
        try:
            main()
        except SystemExit as exit_:
            return int(exit_.code or 0)
        return 0

    return run


def test_the_command_writes_the_site(penstock: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert penstock("--store", "memory://ui-empty", "--export", "site") == 0  # type: ignore[operator]
    assert "2 pages in site; begin with site/index.html" in capsys.readouterr().out
    assert (tmp_path / "site" / "index.html").is_file()


def test_an_address_that_is_open_to_others_is_warned_of_and_one_that_is_not_here_refused(
    penstock: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert penstock("--host", "192.0.2.1") == 2  # type: ignore[operator]
    text = " ".join(capsys.readouterr().err.split())
    assert "whoever reaches 192.0.2.1 can read this store and label in it" in text
    assert "cannot listen on 192.0.2.1, port 8008" in text
