"""Who may import what: packages stand on floors and import only those above, and heavy libraries stay where their work is done.

Every import counts: those inside functions and under TYPE_CHECKING too.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = (
    {"classifier"},
    {"storage"},
    {"bundle"},
    {"settings"},
    {"readers"},
    {"registry", "review"},
    {"report", "inference_client", "step_image", "lint", "integrations"},
    {"doctor"},
    {"preflight", "ingest", "train", "search", "evaluate", "publish", "gate", "validate_serving", "deploy", "score", "predictor"},
    {"pipelines"},
)
"""A package imports only packages of the floors above its own; so no step imports another, and nobody imports pipelines."""

_NETWORKS = ("layers", "network", "timm_networks", "own_networks", "pretrained", "weights")
ALLOWED = {  # library -> where it may be imported, as path prefixes; `*` matches one folder
    "kfp": ("pipelines/", "components/step_image.py", "components/*/component.py"),
    "kfp_server_api": ("pipelines/submit.py",),
    "kserve": ("components/predictor/",),
    "boto3": ("components/storage/s3",),
    "botocore": ("components/storage/s3",),
    "kubernetes": ("components/deploy/", "components/doctor/", "components/score/kuberay.py"),
    "torch": ("components/train/", *(f"components/classifier/{file}.py" for file in (*_NETWORKS, "device"))),
    "torchvision": ("components/classifier/pretrained.py", "components/ingest/"),
    "timm": ("components/classifier/timm_networks.py",),
    "fastapi": ("components/predictor/", "pipelines/ui/", "pipelines/cli/ui.py"),
    "uvicorn": ("components/predictor/", "pipelines/cli/ui.py"),
    "typer": ("pipelines/cli/", "components/predictor/"),
    "sklearn": ("components/evaluate/", "components/ingest/"),
    "cleanlab": ("components/evaluate/",),
    "openvino": ("components/train/",),
    "matplotlib": ("components/report/",),
    "jinja2": ("components/report/",),
    "openlineage": ("components/integrations/open_lineage.py",),
    "mlflow": ("components/integrations/mlflow_run.py",),
    "model_registry": ("components/integrations/model_registry.py",),
    "huggingface_hub": ("components/integrations/hub.py", "components/classifier/timm_networks.py"),
    "oras": ("components/integrations/model_image.py",),
    "modelcar_base_image": ("components/integrations/model_image.py",),
    "kubeflow": ("components/train/train_job.py",),
    "ray": ("components/score/on_ray.py",),
}


@cache
def modules() -> dict[str, tuple[str, ast.Module]]:
    """Every module of ours by its dotted name, with its path and its syntax tree."""
    found = {}
    for top in ("components", "pipelines"):
        for path in sorted((ROOT / top).rglob("*.py")):
            relative = path.relative_to(ROOT)
            name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            found[name] = (relative.as_posix(), ast.parse(path.read_text("utf-8")))
    return found


def imported(tree: ast.Module) -> Iterator[str]:
    """The full name of everything that is imported anywhere in a module: `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package(module: str) -> str:
    """The package that has a floor: the second part of `components.…`, or `pipelines`."""
    top, *rest = module.split(".")
    return rest[0] if top == "components" and rest else top


def floor(package: str) -> int:
    return next(k for k, packages in enumerate(FLOORS) if package in packages)


@cache
def our_imports() -> dict[str, set[str]]:
    """Module -> modules of ours that it imports."""
    ours = modules()
    return {
        name: {
            target if target in ours else target.rpartition(".")[0]
            for target in imported(tree)
            if target.split(".")[0] in ("components", "pipelines")
        }
        for name, (_, tree) in ours.items()
    }


def test_every_package_has_a_floor() -> None:
    packages = {package(name) for name in modules()} - {"components"}
    assert packages - set().union(*FLOORS) == set()


def test_the_table_of_floors_in_the_docs_is_this_one() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8").split("## Floors")[1].split("\n## ")[0]
    rows = [re.findall(r"`([a-z_]+)/?`", line.split("|")[2]) for line in text.splitlines() if line.startswith("|")]
    assert [set(row) for row in rows if row][1:] == list(FLOORS)  # the first is the heading


def test_a_package_imports_only_what_stands_above_it() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, targets in our_imports().items()
        for target in sorted(targets)
        if package(name) != package(target) and floor(package(target)) >= floor(package(name))
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(our_imports()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def permitted(path: str, places: tuple[str, ...]) -> bool:
    return any(path.startswith(place) or Path(path).match(place) for place in places)


@pytest.mark.parametrize("library", ALLOWED)
def test_a_library_is_imported_only_where_its_work_is_done(library: str) -> None:
    importing = [path for path, tree in modules().values() if library in {name.split(".")[0] for name in imported(tree)}]
    assert [path for path in importing if not permitted(path, ALLOWED[library])] == []


def steps_of(decorator: str) -> dict[str, set[str]]:
    """The steps that are declared for an image, and the modules of ours that their bodies import."""
    ours, found = modules(), dict[str, set[str]]()
    for path, tree in ours.values():
        for function in (node for node in tree.body if isinstance(node, ast.FunctionDef) and path.endswith("/component.py")):
            if decorator in {node.id for node in function.decorator_list if isinstance(node, ast.Name)}:
                targets = (name for name in imported(function) if name.startswith("components."))
                found[function.name] = {name if name in ours else name.rpartition(".")[0] for name in targets}
    return found


def reached(start: set[str]) -> set[str]:
    """All modules of ours that some modules import, at once or inside functions, directly or through others."""
    seen, todo = set[str](), list(start)
    while todo:
        if (module := todo.pop()) not in seen:
            seen.add(module)
            todo += [*our_imports()[module], *(parent for parent in [module.rpartition(".")[0]] if parent in our_imports())]
    return seen


NO_TORCH = ("torch", "torchvision", "onnxscript", "safetensors", "onnx")


def test_the_steps_of_the_slim_image_reach_no_module_that_imports_torch() -> None:
    steps, ours = steps_of("slim_component"), modules()
    assert {"evaluate_model", "publish_model", "gate_model", "record_hold", "deploy_model", "conclude_run", "merge_scores"} <= steps.keys()
    heavy = {name for name, (_, tree) in ours.items() if {it.split(".")[0] for it in imported(tree)} & set(NO_TORCH)}
    assert {name: reached(start) & heavy for name, start in steps.items() if reached(start) & heavy} == {}
    assert reached(steps_of("component")["train_model"]) & heavy, "what does reach it is found"


def test_what_the_steps_of_the_slim_image_import_is_there_without_torch() -> None:
    refuse = f"if name.split('.')[0] in {NO_TORCH}: raise ModuleNotFoundError(name)"
    blocked = f"import sys\nclass Refuse:\n def find_spec(self, name, *_):\n  {refuse}\nsys.meta_path.insert(0, Refuse())\n"
    imports = "".join(f"import {name}\n" for name in sorted(set().union(*steps_of("slim_component").values())))
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", blocked + imports], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_shard_imports_no_engine_and_no_library_that_it_does_not_use() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "import sys, components.score.shard; print(*sys.modules)"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    unused = {"components.score.on_ray", "components.score.ray_job", "components.score.kuberay", "components.bundle.evaluation"}
    assert set(ran.stdout.split()) & (unused | {"ray", "kubernetes", "scipy", "sklearn", "boto3"}) == set()


def test_a_component_file_holds_no_logic() -> None:
    long = []
    for path, tree in modules().values():
        if not path.endswith("/component.py"):
            continue
        for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
            branches = [n for n in ast.walk(function) if isinstance(n, ast.While | ast.Try | ast.With)]
            if branches or len(function.body) > 25:
                long.append(f"{path}: {function.name}")
    assert long == []
