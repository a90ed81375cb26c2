"""Makes the pictures of docs/gallery.md anew, from a real run in a temporary folder: `make gallery`, with Chromium installed.

`python docs/gallery.py FOLDER` keeps the run in a folder, and uses one that is there already.
"""

import contextlib
import html
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pexpect
import pyte
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from sklearn.datasets import load_digits

IMAGES = Path(__file__).parent / "images"
PENSTOCK = str(Path(sys.executable).with_name("penstock"))
COLUMNS, LINES = 80, 70
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")} | {"TERM": "xterm-256color"}
COLOURS = {
    "default": "#d6d6d6", "black": "#3b3b3b", "red": "#f2777a", "green": "#8fcf8f", "brown": "#f0c674", "blue": "#7ab0df",
    "magenta": "#c89adf", "cyan": "#72c9c9", "white": "#f2f2f2",
}  # fmt: skip


def terminal(folder: Path, *words: str, halfway: str = "") -> tuple[str, str]:
    """Run a command of penstock on a terminal of 80 columns; returns the last screen as HTML, and the last that shows `halfway`."""
    screen, kept = pyte.Screen(COLUMNS, LINES), ""
    stream = pyte.ByteStream(screen)
    child = pexpect.spawn(PENSTOCK, list(words), cwd=folder, env=ENVIRONMENT, dimensions=(LINES, COLUMNS), timeout=600)
    while True:
        try:
            stream.feed(child.read_nonblocking(10_000, timeout=600))
        except pexpect.EOF:
            break
        if halfway and any(halfway in line for line in screen.display):
            kept = as_html(screen, words)
    child.close()
    if child.exitstatus != 0:
        sys.exit(f"penstock {' '.join(words)} failed:\n" + "\n".join(line.rstrip() for line in screen.display if line.strip()))
    return as_html(screen, words), kept


def as_html(screen: pyte.Screen, words: tuple[str, ...]) -> str:
    """A screen as a page, below the command that was typed."""
    last = max(number for number, line in enumerate(screen.display) if line.strip())
    rows = []
    for number in range(last + 1):
        row = ""
        for column in range(COLUMNS):
            cell = screen.buffer[number][column]
            style = f"color:{COLOURS.get(cell.fg, '#' + cell.fg)}" + (";font-weight:bold" if cell.bold else "")
            row += f'<span style="{style}">{html.escape(cell.data)}</span>'
        rows.append(row)
    body = "\n".join([f"<b>$ penstock {html.escape(' '.join(words))}</b>", *rows])
    style = "margin:0;padding:14px;background:#1b1d21;color:#f2f2f2;font:13px/1.25 'DejaVu Sans Mono',monospace;width:max-content"
    return f'<body style="margin:0"><pre style="{style}">{body}</pre>'


@contextlib.contextmanager
def running(folder: Path, path: str, *words: str) -> Iterator[str]:
    """A server of penstock's on a free port; gives its address when `path` answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    process = subprocess.Popen([PENSTOCK, *words, "--port", str(port)], cwd=folder, env=ENVIRONMENT)
    try:
        for _ in range(240):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
                if answer.status == 200:
                    break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def write_pictures(folder: Path) -> None:
    """Digits that are harder than those of training: they are turned."""
    folder.mkdir()
    for number, digit in enumerate(load_digits().images[1000:1300]):
        picture = (
            Image.fromarray((digit * 255 / 16).astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC).rotate(number % 7 * 8 - 24)
        )
        picture.save(folder / f"{number:02}.png")


def save(name: str, shot: bytes) -> None:
    """Write a screenshot as a small PNG of 128 colours."""
    picture = Image.open(io.BytesIO(shot)).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    picture.save(IMAGES / f"{name}.png", optimize=True)
    print(f"{name}.png {picture.size} {(IMAGES / f'{name}.png').stat().st_size // 1024} KiB")


def shoot(page: Page, name: str, source: str, height: int = 0, before: Callable[[Page], None] = lambda page: None) -> None:
    """Photograph a page: HTML, or an address; the whole of it, or so many pixels of its top."""
    if source.startswith("<"):
        page.set_content(source)
        save(name, page.locator("pre").screenshot())
        return
    page.goto(source)
    before(page)
    page.set_viewport_size({"width": 1000, "height": height or 900})
    save(name, page.screenshot(full_page=not height))


def ask(pictures: list[Path]) -> Callable[[Page], None]:
    """What a person does at /docs."""

    def choose(page: Page) -> None:
        page.get_by_label("Ask about pictures").set_input_files(pictures)
        page.wait_for_function(f"document.querySelectorAll('#answers .likely progress').length == {5 * len(pictures)}")

    return choose


def make(folder: Path) -> None:
    """Run everything that is shown in a folder, and photograph it."""
    if not (folder / "pictures").is_dir():
        terminal(folder, "run", "training", "--set", "epochs=3", "--set", "width=0.25")
        write_pictures(folder / "pictures")
    screens = {}
    screens["terminal-training"], screens["terminal-progress"] = terminal(folder, "run", "training", "--set", "epochs=12", halfway=" left")
    screens["terminal-gate"], _ = terminal(folder, "gate", "explain", "previous", "--env", "prod")
    screens["terminal-diff"], _ = terminal(folder, "models", "diff", "previous", "champion", "--html", "diff.html")
    terminal(folder, "report", "champion", "--output", "report.html")
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome") or sys.exit("install Chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 900}, color_scheme="light")
        with running(folder, "/v2/health/ready", "serve", "--review") as address:
            shoot(page, "docs-page", f"{address}/docs", 900, ask(sorted((folder / "pictures").iterdir())[:4]))
            screens["terminal-predict"], _ = terminal(folder, "predict", "pictures/1?.png", "--url", address)
            terminal(folder, "predict", "pictures", "--csv", "--url", address)
            screens["terminal-drift"], _ = terminal(folder, "drift", address)
        for name, source in screens.items():
            shoot(page, name, source)
        shoot(page, "report", f"file://{folder}/report.html", 1500)
        shoot(page, "comparison", f"file://{folder}/diff.html", 1300)
        with running(folder, "/", "ui") as address:
            shoot(page, "ui-model", f"{address}/models/digits.html", 1100)
            shoot(page, "ui-review", f"{address}/review/digits/label.html", 900)
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        make(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as temporary:
            make(Path(temporary))
