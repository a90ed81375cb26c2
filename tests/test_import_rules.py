"""Who may import what: heavy or outward libraries stay where their work is done, and no step leans on another."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = {"bundle", "settings", "classifier", "storage", "registry", "step_image", "inference_client"}
"""What any step may import of ours."""

ALLOWED = {  # library -> where it may be imported, as path prefixes; `*` matches one folder
    "kfp": ("pipelines/", "components/step_image.py", "components/*/component.py"),
    "kfp_server_api": ("pipelines/submit.py",),
    "kserve": ("components/predictor/",),
    "boto3": ("components/storage/s3",),
    "botocore": ("components/storage/s3",),
    "kubernetes": ("components/deploy/",),
    "torch": ("components/train/", "components/classifier/network", "components/classifier/pretrained", "components/classifier/device"),
    "torchvision": ("components/train/", "components/classifier/network", "components/classifier/pretrained", "components/ingest/"),
    "typer": ("pipelines/cli/", "components/predictor/"),
    "sklearn": ("components/evaluate/", "components/train/", "components/ingest/"),
    "matplotlib": ("components/evaluate/",),
}
REACHES_INTO_STEPS = {  # a step's folder -> other steps' folders it may import, each for the reason given
    "preflight": None,  # asks every step for its own checks; None: any
    "predictor": {"review"},  # hands doubtful pictures on
    "gate": {"evaluate"},  # draws the report again, with the decision
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for top in ("components", "pipelines"):
        for path in sorted((ROOT / top).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def permitted(path: str, places: tuple[str, ...]) -> bool:
    return any(path.startswith(place) or Path(path).match(place) for place in places)


@pytest.mark.parametrize("library", ALLOWED)
def test_a_library_is_imported_only_where_its_work_is_done(library: str) -> None:
    outside = [p for p, tree in modules() if library in {m.split(".")[0] for m in imported(tree)} and not permitted(p, ALLOWED[library])]
    assert outside == []


def test_no_step_imports_another() -> None:
    wrong = []
    for path, tree in modules():
        parts = path.split("/")
        if parts[0] != "components" or len(parts) < 3:
            continue
        step = parts[1]
        reach = REACHES_INTO_STEPS.get(step, set())
        for module in imported(tree):
            names = module.split(".")
            if (
                names[0] == "components"
                and len(names) > 1
                and names[1] not in SHARED | {step}
                and reach is not None
                and names[1] not in reach
            ):
                wrong.append(f"{path} imports {module}")
    assert wrong == []


def test_a_component_file_holds_no_logic() -> None:
    long = []
    for path, tree in modules():
        if not path.endswith("/component.py"):
            continue
        for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
            branches = [n for n in ast.walk(function) if isinstance(n, ast.While | ast.Try | ast.With)]
            if branches or len(function.body) > 25:
                long.append(f"{path}: {function.name}")
    assert long == []
