"""What an image installs has the hashes that are committed, or it is not built."""

import re
import shutil
from pathlib import Path

import pytest

from tests.images import engine
from tests.images.engine import ROOT

ENTRY = re.compile(r"^(\S+==\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)


def test_every_pin_has_hashes_and_nothing_else_has() -> None:
    """`make hashes` writes those of new pins."""
    pins = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    text = (ROOT / "hashes.txt").read_text("utf-8")
    assert sorted(pin for pin, _ in ENTRY.findall(text)) == sorted(pins)
    assert [line for line in ENTRY.sub("", text).splitlines() if line and not line.startswith("#")] == []


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A copy of what is sent to the builder, to be changed."""
    for name in ("pyproject.toml", "constraints.txt", "hashes.txt", "README.md", "LICENSE", "Dockerfile", ".dockerignore"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    for name in ("components", "pipelines", ".docker"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.integration
@pytest.mark.timeout(1800)
@pytest.mark.xdist_group("images")
@pytest.mark.usefixtures("docker_engine")
@pytest.mark.parametrize("package", ["setuptools", pytest.param("annotated-types", marks=pytest.mark.release)])
def test_a_changed_hash_stops_the_build(package: str, context: Path) -> None:
    """The first is a tool of the build, the second is installed."""
    file = context / "hashes.txt"
    changed = re.sub(rf"^({package}==\S+ \\\n    --hash=sha256:)\w{{4}}", r"\g<1>0000", file.read_text("utf-8"), flags=re.MULTILINE)
    assert changed != file.read_text("utf-8")
    file.write_text(changed, "utf-8")
    ran = engine.attempt("build", "--network=host", "--target", "predictor", str(context), timeout=900)
    assert ran.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in ran.stderr
    assert package in ran.stderr


@pytest.mark.integration
@pytest.mark.timeout(1800)
@pytest.mark.xdist_group("images")
@pytest.mark.usefixtures("docker_engine")
def test_a_package_without_a_hash_stops_the_build(context: Path) -> None:
    file = context / "hashes.txt"
    file.write_text(re.sub(r"^annotated-types==.*\n    .*\n", "", file.read_text("utf-8"), flags=re.MULTILINE), "utf-8")
    ran = engine.attempt("build", "--network=host", "--target", "predictor-requirements", str(context), timeout=900)
    assert ran.returncode != 0
    assert "annotated-types==" in ran.stderr
    assert "has no hashes in hashes.txt" in ran.stderr


@pytest.mark.release
@pytest.mark.timeout(1800)
@pytest.mark.xdist_group("images")
@pytest.mark.usefixtures("docker_engine")
def test_extras_do_not_bring_back_what_is_left_out() -> None:
    """timm asks for torch, and torch for Triton."""
    tag = engine.build("pipeline-requirements", "--build-arg", "EXTRAS=timm,ray,hub", tag="penstock-extras-list:test")
    try:
        lines = engine.docker("run", "--rm", tag, "cat", "/requirements/pipeline.txt").splitlines()
    finally:
        engine.docker("rmi", tag)
    names = {re.split("==| @ ", line)[0] for line in lines}
    assert names >= {"timm", "ray", "torch", "onnxruntime-gpu", "pandas"}
    assert names & {"triton", "onnxruntime"} == set()
    assert all("--hash=sha256:" in line for line in lines)
