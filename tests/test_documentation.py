"""What README and docs tell people to type exists: every `make` target, and every `penstock` command with its options."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from pipelines.cli import app

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(path for place in ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "manifests/**/*.md") for path in ROOT.glob(place))
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))

OMITTED = {"…", "..."}


def typed(text: str, program: str) -> Iterator[list[str]]:
    """The words after a program's name, from each command in a Markdown text's code blocks and `spans`."""
    fenced = re.findall(r"^ *```[a-z]*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4}(.*)$", prose, re.MULTILINE)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    for line in "\n".join([*fenced, *indented, *spans]).replace("\\\n", " ").splitlines():
        for command in re.split(r"&&|\|\|?|;|\$\(|&$", line):
            command = re.sub(r"\s\d?>+\s*\S+", "", command)  # where the output goes
            words = re.match(rf"\s*\$?\s*(?:\w+=\S*\s+)*(?:\S*/)?{program}\s+(.*)", command)
            if words:
                yield shlex.split(words[1].replace("[", " ").replace("]", " "), comments=True)


def problem(words: list[str]) -> str:
    """What is wrong with a `penstock` command line; nothing is run."""
    command = get_command(app)
    context = typer.Context(command, info_name="penstock")
    while words and words[0] not in OMITTED and isinstance(command, typer.core.TyperGroup) and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            return f"no command {words[0]!r}"
        command, words, context = found, words[1:], typer.Context(found, parent=context, info_name=words[0])
    try:
        _, left, _ = command.make_parser(context).parse_args(words)
    except Exception as error:  # noqa: BLE001 - whatever click says is the answer
        return str(error) or type(error).__name__
    surplus = [word for word in left if word not in OMITTED]
    return f"too many arguments: {surplus}" if surplus else ""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_in_the_documents_exists(document: Path) -> None:
    text = document.read_text("utf-8")
    targets = {word for words in typed(text, "make") for word in words if re.fullmatch("[a-z-]+", word)}
    assert targets - TARGETS == set()
    assert [f"penstock {' '.join(words)}: {wrong}" for words in typed(text, "penstock") if (wrong := problem(words))] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_object_that_kubectl_makes_or_changes_has_a_namespace(document: Path) -> None:
    text = document.read_text("utf-8").replace("\\\n", " ")
    found = re.findall(
        r"kubectl [^`\n]*\b(?:create|patch|annotate) (?:secret|configmap|serviceaccount|role|rolebinding|token)\b[^`\n]*", text
    )
    assert [line for line in found if " -n " not in line] == []


def test_every_picture_in_the_documents_is_there_and_all_are_small() -> None:
    found = [(path.parent, name) for path in DOCUMENTS for name in re.findall(r"!\[[^]]*\]\(([^):]+)\)", path.read_text("utf-8"))]
    shown = {(folder / name).resolve() for folder, name in found}
    assert set((ROOT / "docs" / "images").iterdir()) == shown
    assert sum(path.stat().st_size for path in shown) < 1_500_000


def test_every_target_is_listed_by_make_help_and_is_phony() -> None:
    assert set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE)) == TARGETS == set(MAKEFILE.split(".PHONY:")[1].split())


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("penstock modles list", "no command 'modles'"),
        ("$ X=1 .venv/bin/penstock models lst --json | jq", "no command 'lst'"),
        ("penstock models list --jsno", "--jsno"),
        ("penstock models list surplus", "too many arguments"),
        ("penstock run \\\n  --nothing", "--nothing"),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, wrong: str) -> None:
    (words,) = typed(f"text\n\n```console\n{line}   # why\n```\n", "penstock")
    assert wrong in problem(words)
