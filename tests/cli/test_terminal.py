"""A run as it looks on a terminal of some width, and through a pipe."""

import io
import re
import subprocess
import time
from pathlib import Path

import pexpect
import pyte
import pytest
from rich.console import Console

from pipelines.cli import progress
from pipelines.local import Step
from tests.pipelines.runs import command, environment

pytestmark = [pytest.mark.xdist_group("training_run"), pytest.mark.timeout(900)]
SETTINGS = ("--set", "epochs=2", "--set", "augmentation=none", "--name", "digits", "--store", "store")


class Screens:
    """What a terminal showed: the screen after each portion of output, and the text that was scrolled away."""

    def __init__(self, columns: int) -> None:
        self._screen = pyte.HistoryScreen(columns, 60, history=1000)
        self._stream = pyte.ByteStream(self._screen)
        self.seen: list[str] = []

    def feed(self, data: bytes) -> None:
        self._stream.feed(data)
        self.seen.append("\n".join(line.rstrip() for line in self._screen.display))

    @property
    def last(self) -> str:
        scrolled = ["".join(line[k].data for k in range(self._screen.columns)).rstrip() for line in self._screen.history.top]
        return "\n".join([*scrolled, self.seen[-1]])


@pytest.fixture(
    scope="module",
    params=[pytest.param(60, marks=pytest.mark.integration), *(pytest.param(columns, marks=pytest.mark.release) for columns in (80, 120))],
)
def screens(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Screens:
    """A training on a pseudo-terminal of so many columns."""
    shown = Screens(request.param)
    given = {key: value for key, value in environment().items() if key not in {"NO_COLOR", "COLUMNS"}} | {"TERM": "xterm-256color"}
    program, *arguments = command("run", "training", *SETTINGS)
    child = pexpect.spawn(
        program, arguments, cwd=tmp_path_factory.mktemp("terminal"), env=given, dimensions=(60, request.param), timeout=800
    )
    while True:
        try:
            shown.feed(child.read_nonblocking(100_000, timeout=800))
        except pexpect.EOF:
            break
    child.close()
    assert child.exitstatus == 0, shown.last
    return shown


def test_a_terminal_shows_each_step_once_and_a_bar_for_the_one_that_runs(screens: Screens) -> None:
    for step in ("Preflight", "Ingest", "Train", "Evaluate", "Publish", "Gate", "Validate serving", "Deploy"):
        assert len(re.findall(rf"^✓ {step} ", screens.last, re.MULTILINE)) == 1, screens.last
    assert "– hold" in screens.last
    assert "━" not in screens.last.split("– hold")[0].split("✓ Preflight")[1], "the bar is gone at the end"
    running = [line for screen in screens.seen for line in screen.splitlines() if "Train" in line and "━" in line]
    assert any("/s" in line and "left" in line for line in running), running[-3:]


def test_no_line_mixes_two_and_nothing_of_kfps_output_is_shown(screens: Screens) -> None:
    for screen in [*screens.seen, screens.last]:
        for line in screen.splitlines():
            assert len(re.findall(r"[✓·✗⠁-⣿]", line)) <= 1, line
        for noise in ("KFP Executor", "executorInput", "INFO", "{'", '{"', "Traceback"):
            assert noise not in screen


def test_the_end_is_whole_at_every_width(screens: Screens) -> None:
    rows = [line for line in screens.last.splitlines() if line.startswith(("│", "┃"))]
    assert len({len(row) for row in rows}) == 1, "\n".join(rows)
    assert re.search(r"version +\d{8}-\d{6}-[0-9a-f]{12}", screens.last)


@pytest.mark.integration
def test_through_a_pipe_there_are_plain_lines(tmp_path: Path) -> None:
    ran = subprocess.run(command("run", "training", *SETTINGS), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    assert "\x1b" not in ran.stdout
    assert "· Train …" in ran.stdout.splitlines()
    assert re.search(r"^✓ Train +[\d.]+ s +validation_accuracy", ran.stdout, re.MULTILINE)
    assert "progress: " not in ran.stdout
    assert "progress: " not in next(tmp_path.rglob("run.log")).read_text()


def test_a_long_step_without_a_terminal_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "SILENCE_SECONDS", 0.3)
    step, printed = Step("train-model", time.monotonic()), ""
    with progress.Printer({"train-model": "Train"}, quiet=False, verbose=False) as printer:
        printer("started", step, "")
        printer("line", step, "progress: 1,200 of 5,000 steps")
        while printed.count("goes on") < 2:
            time.sleep(0.1)
            printed += capsys.readouterr().out
    lines = (printed + capsys.readouterr().out).splitlines()
    assert lines[0] == "· Train …"
    assert 2 <= len(lines[1:]) <= (time.monotonic() - step.started) / 0.3
    assert all(re.fullmatch(r"· Train +[\d.]+ s +goes on  1,200 of 5,000 steps", line) for line in lines[1:]), lines
    assert progress.SILENCE_SECONDS < 30


def test_the_bar_names_the_unit_that_is_counted_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "console", Console(file=io.StringIO(), force_terminal=True, width=120))
    step = Step("ingest-dataset", time.monotonic())
    with progress.Printer({"ingest-dataset": "Ingest"}, quiet=False, verbose=False) as printer:
        printer("started", step, "")
        assert printer._bar is not None
        (task,) = printer._bar.tasks
        shown = []
        for line in ("50 of 100 files, 9/s, 5 s left", "90 of 100 files, 9/s, 1 s left", "10 of 100 thumbnails, 99/s, 1 s left"):
            printer("line", step, f"progress: {line}")
            shown.append((int(task.completed), task.fields["unit"]))
    assert shown == [(50, "files"), (90, "files"), (10, "thumbnails")]


def test_large_figures_of_a_step_are_written_out() -> None:
    figures = {"rows": 1_234_567.0, "errors": 0.0, "review_share": 0.03125, "images_per_second": 15442.3}
    assert progress.figures_line(Step("merge-scores", 0.0, figures=figures)) == (
        "rows 1234567  errors 0  review_share 0.03125  images_per_second 15442"
    )
