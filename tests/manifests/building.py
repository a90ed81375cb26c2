"""Builds kustomizations with a real kustomize."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
EXAMPLE = MANIFESTS / "base" / "inference-service"
_BUILT = ROOT / "build" / "kustomize" / "kustomize"  # by .ci/kustomize


def kustomize() -> list[str]:
    """The command that builds a folder; empty where there is none."""
    if found := shutil.which("kustomize") or (str(_BUILT) if _BUILT.exists() else None):
        return [found, "build"]
    kubectl = shutil.which("kubectl")
    return [kubectl, "kustomize"] if kubectl else []


def tried(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*kustomize(), str(folder)], capture_output=True, text=True, check=False, timeout=300)


@cache
def text_of(folder: Path) -> str:
    done = tried(folder)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr, done.stderr
    return done.stdout


def built(folder: Path) -> list[Object]:
    return list(yaml.load_all(text_of(folder), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def composed(place: Path, *components: str, resources: tuple[Path, ...] = (MANIFESTS / "base", EXAMPLE), **more: Any) -> list[Object]:
    """What a kustomization of a user's own gives, with these components over the base and the example."""
    place.mkdir(parents=True, exist_ok=True)
    mine = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "mine",
        "resources": [os.path.relpath(it, place.resolve()) for it in resources],
        "components": [os.path.relpath(MANIFESTS / "components" / it, place.resolve()) for it in components],
        **more,
    }
    (place / "kustomization.yaml").write_text(yaml.safe_dump(mine))
    return built(place)


def folders(kind: str) -> list[Path]:
    """All folders of manifests/ whose kustomization is of this kind."""
    files = sorted(MANIFESTS.rglob("kustomization.yaml"))
    return [file.parent for file in files if yaml.safe_load(file.read_text())["kind"] == kind]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [it for it in objects if it["kind"] == kind]


def only(objects: list[Object], kind: str) -> Object:
    (found,) = of_kind(objects, kind)
    return found
