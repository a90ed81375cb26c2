"""What holds where the command line says nothing: penstock.yaml, the source's name, the store's only model; and what a shell completes."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from components.classifier.errors import UsageError
from components.registry import Registry
from components.registry.publication import publish_directory
from components.storage import open_store
from pipelines.cli.output import DEFAULT_STORE
from pipelines.cli.project import chosen_name, name_of_source, project_settings
from pipelines.cli.run import prepare
from pipelines.ui.stored import Stored
from tests.cli.test_refusals import penstock
from tests.pipelines.runs import command, environment
from tests.registry import bundles

Shell = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("~/data/Our Pets", "our-pets"),
        ("s3://bucket/sets/birds_2024.tar.gz", "birds-2024"),
        ("data/pets/", "pets"),
        ("1999-letters.zip", "letters"),
        ("mnist", "mnist"),
    ],
)
def test_a_source_gives_the_model_its_name(source: str, name: str) -> None:
    assert name_of_source(source) == name


def test_a_source_of_which_no_name_can_be_made_asks_for_one() -> None:
    with pytest.raises(UsageError, match="give one by --name"):
        name_of_source("data/123")


@pytest.mark.integration
def test_a_model_of_another_source_is_never_called_digits_in_silence(project: Path, capsys: Shell) -> None:
    for number, colour in enumerate(("cat", "dog")):
        (project / "pets" / colour).mkdir(parents=True)
        (project / "pets" / colour / f"{number}.png").touch()
    arguments = prepare("training", ["source=pets"], env="", store="store", name="")
    assert arguments["name"] == "pets"
    assert "The model is called pets; --name gives it another name." in capsys.readouterr().err
    assert prepare("training", ["source=pets"], env="", store="store", name="mine")["name"] == "mine"
    assert prepare("training", [], env="", store="store", name="")["name"] == "digits"


def test_the_projects_file_says_what_the_command_line_does_not(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Shell) -> None:
    (project / "penstock.yaml").write_text("store: my/store\nname: mine\nenvironment: staging\nparameters:\n  training: {epochs: 0}\n")
    refused = penstock(monkeypatch, capsys, "run", "training")
    assert "epochs" in refused.text
    (project / "penstock.yaml").write_text(
        "store: my/store\nname: mine\nparameters:\n  training: {epochs: 9, learning_rate: 0.01, policy: {minimum_accuracy: 0.5}}\n"
    )
    assert "mine in" in penstock(monkeypatch, capsys, "models", "show", "champion").text.replace("mine has no champion", "mine in")
    arguments = prepare("training", ["learning_rate=0.02"], env="", store="store", name="mine")
    assert (arguments["epochs"], arguments["training"], arguments["policy"]) == ("9", {"learning_rate": 0.02}, {"minimum_accuracy": 0.5})
    (project / "penstock.yaml").write_text("environment: staging\nparameters:\n  training: {environment: prod, name: dogs, store: s}\n")
    for env, wanted in (("dev", "dev"), ("", "prod"), ("staging", "prod")):  # the last is what typer hands over from the file itself
        assert prepare("training", [], env=env, store=DEFAULT_STORE, name="")["environment"] == wanted
    arguments = prepare("training", [], env="", store="other", name="cats")
    assert (arguments["name"], Path(arguments["store"]).name) == ("cats", "other")
    (project / "penstock.yaml").write_text("store: my/store\nname: mine\n")
    monkeypatch.setenv("PENSTOCK_NAME", "theirs")
    assert "theirs has no champion" in penstock(monkeypatch, capsys, "models", "show", "champion").text
    assert "ours has no champion" in penstock(monkeypatch, capsys, "models", "show", "champion", "--name", "ours").text


def test_the_projects_name_is_that_of_the_model_and_of_nothing_else(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Shell) -> None:
    (project / "penstock.yaml").write_text("store: s1\nname: pets\n")
    save_file({"a": np.zeros(1, np.float32)}, project / "resnet18.safetensors")
    added = penstock(monkeypatch, capsys, "weights", "add", str(project / "resnet18.safetensors"))
    assert "pets" not in added.text.split(" is in ")[0]
    assert penstock(monkeypatch, capsys, "weights", "remove").code == 2


def test_an_empty_value_is_none_and_a_date_is_its_text(project: Path) -> None:
    (project / "penstock.yaml").write_text("parameters:\n  training: {actor: , reason: 2026-01-01, policy: {slice_floors: 2026-01-01}}\n")
    assert project_settings("training") == ["reason=2026-01-01", 'policy={"slice_floors": "2026-01-01"}']


@pytest.mark.parametrize(
    ("content", "words"),
    [("stor: x", "did you mean 'store'"), ("- x", "takes a mapping"), ("a: [", "cannot be read"), ("parameters: {trainig: {}}", "trainig")],
)
def test_a_mistake_in_the_projects_file_is_one_line(
    content: str, words: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Shell
) -> None:
    (project / "penstock.yaml").write_text(content)
    refused = penstock(monkeypatch, capsys, "models", "list")
    assert refused.code == 2
    assert words in refused.text


def publish(project: Path, name: str, number: int = 1) -> str:
    bundle = bundles.evaluated(project / f"{name}-{number}", samples=300 * number, trained_at=f"2026-0{number}-01T00:00:00+00:00")
    return publish_directory(Registry(open_store("store"), name), bundle, run=f"run-{number}").version


def test_the_stores_only_model_is_meant_and_several_ask_for_a_name(project: Path) -> None:
    assert chosen_name("store", "") == "digits"
    publish(project, "pets")
    (project / "store" / "models" / ".DS_Store").touch()
    assert chosen_name("store", "") == "pets"
    assert Stored("store").names() == ["pets"]
    publish(project, "birds")
    with pytest.raises(UsageError, match=r"several models \(birds, pets\); say which one by --name"):
        chosen_name("store", "")
    assert chosen_name("store", "pets") == "pets"


def test_a_version_is_named_by_its_beginning_or_that_of_its_digest(project: Path) -> None:
    versions = [publish(project, "pets", number) for number in (1, 2)]
    registry = Registry(open_store("store"), "pets")
    assert registry.select(versions[0][:8]) == versions[0]
    assert registry.select(versions[1].rpartition("-")[2][:5]) == versions[1]
    with pytest.raises(UsageError, match="several versions of pets begin with '2026'"):
        registry.select("2026")
    assert registry.match("no-such") == "no-such"


def test_help_lists_all_parameters_of_the_pipeline_that_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Shell) -> None:
    for words in (("run", "training", "-h"), ("submit", "training", "--help")):
        shown = penstock(monkeypatch, capsys, *words)
        assert shown.code == 0
        for word in ("learning_rate", "from 1 to 10000", "minimum_accuracy", "How the network is trained"):
            assert word in shown.text, word
    assert "learning_rate" not in penstock(monkeypatch, capsys, "run", "--help").text
    assert re.fullmatch(r"penstock \d+\.\d+\.\d+", penstock(monkeypatch, capsys, "--version").text)


def complete(project: Path, line: str) -> list[str]:
    """What zsh would offer for a command line; its last word is what was begun."""
    given = environment() | {"_PENSTOCK_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
    program = [*command()[:2], "import sys; sys.argv[0] = 'penstock'; from pipelines.cli import main; main()"]
    ran = subprocess.run(program, cwd=project, env=given, capture_output=True, text=True, check=False, timeout=300)
    return re.findall(r'"([^"]+)"', ran.stdout)


def test_a_shell_completes_pipelines_settings_values_names_and_versions(project: Path) -> None:
    version = publish(project, "pets")
    assert complete(project, "penstock run tr") == ["training"]
    assert complete(project, "penstock run training --set learning") == ["learning_rate="]
    assert complete(project, "penstock run training --set augmentation=") == [
        f"augmentation={value}" for value in ("auto", "none", "light", "affine", "photo")
    ]
    assert complete(project, "penstock models show --store store --name p") == ["pets"]
    assert complete(project, f"penstock models show --store store {version[:4]}") == [version]
