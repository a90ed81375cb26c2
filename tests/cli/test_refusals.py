"""What a user can get wrong: one line, what to do, the exit code, and nothing half done."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from components.classifier.extras import remedy, with_remedy
from pipelines.cli import main
from tests.pipelines import runs


class Refused:
    """An ended command: exit code, what it said in one line, and the lines of its errors."""

    def __init__(self, code: int, text: str, lines: list[str]) -> None:
        self.code, self.text, self.lines = code, text, lines


def penstock(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> Refused:
    monkeypatch.setattr("sys.argv", ["penstock", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    code = ended.value.code
    assert isinstance(code, int)
    return Refused(code, " ".join((said.out + said.err).split()), said.err.splitlines())


KSERVE = ["target=kserve", "store=s3://models/penstock"]


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        (["source=nowhere"], 2, ["nowhere", "does not exist"]),
        (["source=digit"], 2, ["did you mean 'digits'"]),
        (["epochs=-1"], 2, ["epochs", "-1", "from 1"]),
        (["epoch=3"], 2, ["no parameter 'epoch'", "'epochs'"]),
        (["strategy=force"], 2, ["actor", "reason"]),
        (["strategy=force", "actor=ann"], 2, ["reason"]),
        (["strategy=best"], 2, ["best", "quality", "force"]),
        (["environment=test"], 2, ["test", "dev", "staging", "prod"]),
        (["architecture=resnet19"], 2, ["resnet19", "resnet18"]),
        (["policy.minimum_acuracy=0.9"], 2, ["minimum_acuracy", "minimum_accuracy"]),
        (["policy.minimum_accuracy=99"], 2, ["99", "between 0 and 1"]),
        (["target=moon"], 2, ["moon", "local"]),
        (["image_size=wide"], 2, ["image_size", "wide"]),
        (["test_fraction=1.5"], 2, ["test_fraction", "1.5"]),
        (["gpus=1"], 1, ["gpus=1", "no GPU here"]),
        (["device=cuda"], 1, ["cuda", "no GPU here"]),
        (["name=Bad Name"], 2, ["Bad Name", "small letters"]),
        (["namespace=Bad_Name"], 2, ["Bad_Name", "small letters"]),
        (["extra_training_source=/no/such/folder"], 2, ["extra_training_source", "/no/such/folder", "does not exist"]),
        (["augmentation=strong"], 2, ["augmentation", "strong", "light"]),
        (["training.patience=0"], 2, ["patience", "from 1 to 10000", "0"]),
        (["label_smoothing=much"], 2, ["label_smoothing", "a number from 0 to 0.5", "much"]),
        (["training.learning_rat=0.1"], 2, ["learning_rat", "learning_rate"]),
        (['training={"epochs": 3}'], 2, ["epochs is a run parameter of its own"]),
        (["on_unreadable=ignore"], 2, ["on_unreadable", "ignore", "set_aside"]),
        (["memory=2 GB"], 2, ["memory", "2 GB", "2Gi"]),
        (['node_selector={"a b": "c"}'], 2, ["node_selector", "a b"]),
        (["serving.min_replicas=2"], 2, ["serving is for target kserve"]),
        (["target=kserve"], 2, ["s3://bucket/prefix"]),
        ([*KSERVE, "min_replicas=3", "max_replicas=2"], 2, ["max_replicas 2 is below min_replicas 3"]),
        ([*KSERVE, "name=" + "n" * 30, "namespace=" + "s" * 40], 2, ["has 81 characters of 63 at most", "serving.service"]),
        ([*KSERVE, "namespace=with.dot"], 2, ["with.dot"]),
    ],
)
def test_a_run_that_cannot_work_is_refused_before_it_starts(
    settings: list[str], code: int, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [part for setting in settings for part in ("--set", setting)]
    refused = penstock(monkeypatch, capsys, "run", "training", *options)
    assert refused.code == code
    assert refused.text.startswith("error: ")
    for word in words:
        assert word in refused.text
    assert not (tmp_path / ".penstock" / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "files", "words"),
    [
        (["doctor"], {}, 'PENSTOCK_KSERVE_ variable: error parsing value for field "canary_steps"'),
        (["models", "list"], {"penstock.yaml": "5: 6\nname: a\n"}, "penstock.yaml has no setting '5'"),
        (["models", "list"], {"penstock.yaml": "on:\nno: 1\n"}, "penstock.yaml has no setting 'False'"),
        (["models", "list"], {"penstock.yaml": "[" * 3000}, "penstock.yaml cannot be read (maximum recursion depth"),
        (["compile", "--output", "file"], {"file": ""}, "cannot write to file: a part of the path is a file"),
        (["predict", "n" * 300, "--name", "digits"], {}, "the name is too long for this file system"),
        (["predict", "/proc/self/mem", "--name", "digits"], {}, "cannot read /proc/self/mem: the disk reports an input/output error"),
        (["watch", "a", "--set", "source=digits", "--cool-down", "99999999999d"], {}, "--cool-down '99999999999d' is too long; use 3650d"),
        (["watch", "a", "--every", f"{'9' * 5000}d"], {}, "is not a duration"),
        (["schedule", "list", "--host", "http://[::1"], {}, "--host takes an address such as"),
        (["schedule", "list", "--host", "ftp://kubeflow"], {}, "--host takes an address such as"),
        (["searches", "show", ""], {}, "the run's ID is empty"),
        (["compile", "--output", ""], {}, "--output is empty"),
        (["models", "list", "--store", "file"], {"file": ""}, "is a file, not a store"),
        (["models", "history", "--store", "file", "--name", "a"], {"file": ""}, "is a file, not a store"),
        (["lint", "file"], {"file": "", "pyproject.toml": "tool = 1\n"}, "cannot read pyproject.toml"),
    ],
)
def test_an_odd_input_ends_with_one_line(
    arguments: list[str],
    files: dict[str, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_KSERVE_CANARY_STEPS", "10,50")
    for name, content in files.items():
        Path(name).write_text(content)
    refused = penstock(monkeypatch, capsys, *arguments)
    assert refused.code in {1, 2}
    assert refused.text.startswith("error: ")
    assert words in refused.text
    assert len(refused.lines) == 1


def test_a_group_is_not_endless(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert penstock(monkeypatch, capsys, "gate", "plan", "--group-size", "inf").code == 2


@pytest.mark.parametrize("arguments", [["run"], ["run", "training", "--store"], ["nothing"], ["models", "show"], ["submit", "training"]])
def test_wrong_usage_has_exit_code_2(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert penstock(monkeypatch, capsys, *arguments).code == 2


def test_an_unknown_pipeline_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    refused = penstock(monkeypatch, capsys, "run", "trainig")
    assert refused.code == 2
    assert "trainig" in refused.text


def test_a_store_that_cannot_be_written_is_known_before_the_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("not a folder")
    refused = penstock(monkeypatch, capsys, "run", "training", "--store", "file")
    assert refused.code == 1
    assert "file" in refused.text


def test_what_scoring_would_refuse_is_refused_before_it_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = penstock(monkeypatch, capsys, "run", "scoring", "--set", "batch_size=0")
    assert refused.code == 2
    assert "batch_size must be at least 1, not 0" in refused.text


def test_a_json_command_that_fails_prints_its_error_as_one_document(tmp_path: Path) -> None:
    ended = runs.penstock("models", "show", "champion", "--json", cwd=tmp_path)
    assert ended.code == ended.json["exit_code"] == 1
    assert ended.json["error"].startswith("digits has no champion")
    assert ended.err.startswith("error: digits has no champion")


def test_the_default_image_is_warned_of_when_pipelines_are_compiled(tmp_path: Path) -> None:
    assert "a cluster that does not have penstock-pipeline" in runs.penstock("compile", "--output", "out", cwd=tmp_path).err


BASE = {"PIL", "boto3", "botocore", "numpy", "pydantic", "pydantic_core", "pydantic_settings", "s3transfer", "tenacity", "urllib3", "yaml"}
"""What every installation has."""


def imported() -> set[str]:
    """Names of all packages that the code imports anywhere."""
    found = set[str]()
    for path in (file for folder in ("components", "pipelines") for file in (runs.ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            named = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            named += [it.name for it in node.names] if isinstance(node, ast.Import) else []
            found.update(name.partition(".")[0] for name in named)
    return found - sys.stdlib_module_names - {"components", "pipelines"}


def test_of_every_package_that_is_missing_the_extra_is_named() -> None:
    asked = imported() - BASE
    assert len(asked) > 30
    assert {name for name in asked if "pip install 'penstock[" not in remedy(name)} == set()
    assert remedy("openvino.runtime") == "this needs openvino, which is not installed: pip install 'penstock[openvino]'"
    assert remedy("orjson") == "this needs orjson, which is not installed: pip install 'penstock[predictor]'", "kserve needs it"
    assert remedy("onnxruntime") == "this needs onnxruntime, which is not installed: pip install 'penstock[all]'"
    assert {remedy(name) for name in ("numpy", "jmespath", "hypothesis", "no_such_package", "onn")} == {""}
    failed = "plan-shards: ModuleNotFoundError: No module named 'ray.data'"
    assert with_remedy(failed) == f"{failed}; this needs ray, which is not installed: pip install 'penstock[ray]'"
    assert with_remedy("ModuleNotFoundError: No module named 'mine'") == "ModuleNotFoundError: No module named 'mine'"


@pytest.mark.parametrize(("module", "package"), [("fastapi", "fastapi"), ("python_multipart", "python-multipart")])
def test_a_command_whose_extra_is_missing_ends_with_one_line(
    module: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    for name in [name for name in sys.modules if name.startswith("pipelines.ui")]:
        monkeypatch.delitem(sys.modules, name)
    refused = penstock(monkeypatch, capsys, "ui", "--port", "0")
    assert (refused.code, refused.text) == (2, f"error: this needs {package}, which is not installed: pip install 'penstock[ui]'")


@pytest.mark.parametrize(
    ("program", "module", "extra"),
    [("pipelines.cli", "typer", "cli"), ("pipelines.cli", "rich", "all"), ("components.predictor.__main__", "orjson", "predictor")],
)
def test_without_what_a_program_is_made_with_it_ends_with_one_line(program: str, module: str, extra: str) -> None:
    start = f"import sys; sys.modules['{module}'] = None; import {program}"
    ended = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=False)
    assert ended.stderr == f"error: this needs {module}, which is not installed: pip install 'penstock[{extra}]'\n"
    assert ended.returncode == 1
