"""The pages in a real Chromium: labelling by keyboard, every width and colour scheme, and nothing that the policy forbids."""

import shutil
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from pipelines.ui.app import create_app
from tests.ui.conftest import Site

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def address(own: Site) -> Iterator[str]:
    """A running server of a site that is this test's own."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(own.stored, "ann"), log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()


def test_the_queue_is_labelled_by_keys_alone(chromium: object, address: str, own: Site) -> None:
    page = chromium.new_page()  # type: ignore[attr-defined]
    problems = list[str]()
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{address}/review/digits.html")
    page.get_by_role("link", name="Label pictures").focus()
    page.keyboard.press("Enter")
    order = [entry.id for entry in own.stored.queue("digits").entries()]

    def sees(identity: str) -> None:
        page.locator(f'input[name="picture"][value="{identity}"]').first.wait_for(state="attached")
        assert page.locator("img.kept").evaluate("image => image.decode().then(() => image.naturalWidth)") == 560

    for key, following in (("3", 1), ("7", 2), ("u", 1), ("8", 2), ("n", 3), ("-", None)):
        sees(order[0] if key == "3" else page.locator('input[name="picture"]').first.input_value())
        page.keyboard.press(key)
        if following is not None:
            sees(order[following])
    page.get_by_text("No more pictures after the last one").wait_for()
    labels = {entry.id: entry.labels.label for entry in own.stored.queue("digits").entries()}
    assert [labels[identity] for identity in order] == ["3", "8", None, "-"]
    assert [record.label for record in own.stored.queue("digits").labels(order[1])] == ["7", "7", "8"]
    assert problems == []


def test_keys_count_as_soon_as_the_picture_is_there_however_late_the_script_comes(chromium: object, address: str, own: Site) -> None:
    page = chromium.new_page()  # type: ignore[attr-defined]
    page.route("**/static/label.js", lambda route: (time.sleep(1), route.continue_()))
    first, second, *_ = [entry.id for entry in own.stored.queue("digits").entries()]
    page.goto(f"{address}/review/digits/label.html", wait_until="commit")
    page.locator(f'input[name="picture"][value="{first}"]').first.wait_for(state="attached")
    page.keyboard.press("3")
    page.locator(f'input[name="picture"][value="{second}"]').first.wait_for(state="attached")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_the_screen_or_breaks_the_policy(chromium: object, address: str, own: Site, width: int, scheme: str) -> None:
    weak, good, _ = own.versions
    problems, grounds = list[str](), set[str]()
    page = chromium.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)  # type: ignore[attr-defined]
    page.on("console", lambda message: problems.append(message.text))
    for path in (
        "/", "/models/digits.html", "/models/digits/timeline.html", "/models/digits/live.html", f"/models/digits/{good}.html",
        f"/models/digits/{good}/report.html", f"/compare/digits/{weak}/digits/{good}.html", "/runs.html",
        "/runs/20260102-030405-aaaa.html", "/review/digits.html", "/review/digits/label.html",
    ):  # fmt: skip
        page.goto(address + path, wait_until="networkidle")
        page.evaluate(
            "document.querySelectorAll('select[name=version] option').forEach(it => it.textContent = '20260201-000000-' + 'd'.repeat(12))"
        )  # of all digits the widest
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert problems == []
    assert len(grounds) == 1
    light = sum(int(part) for part in grounds.pop().removeprefix("rgb(").rstrip(")").split(",")) > 3 * 128
    assert light == (scheme == "light")
