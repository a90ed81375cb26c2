"""How an image says what it was built from: its labels, its SBOM, and the statement beside that."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.images import engine
from tests.images.engine import ROOT

pytestmark = [pytest.mark.release, pytest.mark.timeout(1800), pytest.mark.xdist_group("images")]

REGISTRY = "provenance-test/"


@pytest.fixture(scope="module")
def image(docker_engine: None) -> Iterator[str]:
    """The predictor's image and what `make sbom` writes of it."""
    options = ("IMAGES=predictor", f"REGISTRY={REGISTRY}", f"DOCKER={engine.client_path()}", "BUILDER_ID=https://ci.example/1")
    for target in ("image", "sbom"):
        ran = subprocess.run(["make", target, *options], cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))
        assert ran.returncode == 0, ran.stderr + ran.stdout
    version = engine.docker("images", "--format", "{{.Tag}}", f"{REGISTRY}penstock-predictor").split()[0]
    yield f"{REGISTRY}penstock-predictor:{version}"
    engine.docker("rmi", f"{REGISTRY}penstock-predictor:{version}")


def written(name: str) -> Any:
    return json.loads((ROOT / "build" / "sbom" / name).read_text("utf-8"))


def test_the_labels_name_the_base_by_its_digest(image: str) -> None:
    labels = engine.inspect(image)["Config"]["Labels"]
    base = engine.inspect(engine.BASE)
    digests = [it.rpartition("@")[2] for it in base["RepoDigests"]] or [base["Id"]]
    assert labels["org.opencontainers.image.base.name"] == engine.BASE
    assert labels["org.opencontainers.image.base.digest"] in digests
    assert labels["penstock.extras"] == ""
    assert engine.inspect(image)["RootFS"]["Layers"][: len(base["RootFS"]["Layers"])] == base["RootFS"]["Layers"]


def test_the_statement_is_of_this_image_this_tree_and_this_sbom(image: str) -> None:
    statement = written("penstock-predictor.provenance.json")
    assert (statement["_type"], statement["predicateType"]) == ("https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1")
    assert statement["subject"] == [{"name": image, "digest": {"sha256": engine.inspect(image)["Id"].removeprefix("sha256:")}}]
    build, run = statement["predicate"]["buildDefinition"], statement["predicate"]["runDetails"]
    assert build["externalParameters"] == {"IMAGES": "predictor", "EXTRAS": "", "PYTHON_IMAGE": engine.BASE}
    dependencies = {it["name"]: it["digest"] for it in build["resolvedDependencies"]}
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    assert dependencies["source"] == {"gitCommit": head}
    assert dependencies["hashes.txt"] == {"sha256": hashlib.sha256((ROOT / "hashes.txt").read_bytes()).hexdigest()}
    assert f"sha256:{dependencies['base']['sha256']}" == engine.inspect(image)["Config"]["Labels"]["org.opencontainers.image.base.digest"]
    assert run["builder"]["id"] == "https://ci.example/1"
    (sbom,) = run["byproducts"]
    assert sbom["digest"]["sha256"] == hashlib.sha256((ROOT / "build/sbom" / sbom["name"]).read_bytes()).hexdigest()


def test_the_sbom_names_the_image_its_base_and_its_packages(image: str) -> None:
    sbom = written("penstock-predictor.json")
    about = sbom["metadata"]["component"]
    assert (about["type"], f"{about['name']}", about["version"]) == ("container", image.rpartition(":")[0], engine.inspect(image)["Id"])
    assert {it["name"] for it in about["properties"]} == {"org.opencontainers.image.base.name", "org.opencontainers.image.base.digest"}
    assert {"kserve", "onnxruntime", "numpy"} <= {it["name"] for it in sbom["components"]}


def test_an_image_of_another_commit_gets_no_statement(image: str, tmp_path: Path) -> None:
    """A tree that has gone on would be described as what it was built from."""
    other = tmp_path / "Dockerfile"
    other.write_text(f"FROM {image}\nLABEL org.opencontainers.image.revision=0000000\n")
    engine.docker("build", "--tag", f"{REGISTRY}other:1", str(tmp_path))
    try:
        sbom = tmp_path / "sbom.json"
        sbom.write_text("{}")
        script = [ROOT / "build/tools/bin/python", ".ci/provenance", engine.client_path(), f"{REGISTRY}other:1", "predictor", sbom, "u:x"]
        ran = subprocess.run(script, cwd=ROOT, capture_output=True, text=True)
    finally:
        engine.docker("rmi", f"{REGISTRY}other:1")
    assert ran.returncode == 1
    assert "was built from 0000000, and this tree is" in ran.stderr
    assert sbom.read_text() == "{}"
