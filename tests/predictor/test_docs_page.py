"""The predictor's /docs in a real browser: a person chooses a picture there and reads the prediction."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.predictor.versions import png

pytestmark = pytest.mark.integration


@pytest.fixture
def page(url: str) -> Iterator[Page]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("needs Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 380, "height": 800})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{url}/docs")
        yield page
        assert [address for address in asked if not address.startswith((url, "blob:", "data:"))] == []
        browser.close()


def test_a_chosen_picture_gets_its_label_and_probabilities(page: Page, tmp_path: Path, pictures: np.ndarray, expected: np.ndarray) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, picture in zip(paths, pictures[:3], strict=True):
        path.write_bytes(png(picture))
    page.get_by_label("Ask about pictures").set_input_files(paths)
    for path, probabilities in zip(paths, expected[:3], strict=True):
        row = page.locator("#answers tr", has_text=path.name)
        expect(row.locator("b")).to_have_text(str(probabilities.argmax()))
        expect(row.locator(".likely")).to_contain_text(f"{probabilities.max():.4f}")
    assert page.evaluate("document.documentElement.scrollWidth") == 380, "nothing sticks out on a phone"


def test_a_file_that_is_not_a_picture_is_answered_by_the_servers_own_words(page: Page, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    page.get_by_label("Ask about pictures").set_input_files([tmp_path / "text.png"])
    expect(page.locator("#answers .wrong")).to_contain_text("the content is not a picture in a known format")
