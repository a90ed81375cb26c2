"""What a run in containers may reach: the run's own folders and the given paths, the storage settings, and nothing more."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipelines import local_runner
from pipelines.docker import in_containers
from pipelines.local import run_local


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    return folder


def mounts(containers: dict[str, Any]) -> dict[str, bool]:
    """Path -> read only."""
    assert all(mount["Source"] == mount["Target"] for mount in containers["mounts"])
    return {mount["Target"]: mount["ReadOnly"] for mount in containers["mounts"]}


def prepare(directory: Path, **arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    given = {"store": str(directory / "store"), "source": "digits", "environment": "dev", "gpus": "0"} | arguments
    return in_containers(given, directory, str(directory / "checkpoints"))


def test_the_store_is_written_and_the_source_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path)
    arguments, containers = prepare(tmp_path, source="pictures", ingest={"extra_training_source": ""})
    assert arguments["source"] == str(tmp_path / "pictures")
    assert mounts(containers) == {
        str(tmp_path / "store"): False,
        str(tmp_path / "pictures"): True,
        str(tmp_path / "tmp"): False,
        str(tmp_path / "cache"): False,
        str(tmp_path / "checkpoints"): False,
    }
    assert (tmp_path / "store").is_dir()  # the engine would make it as root's


def test_a_second_source_inside_the_settings_of_ingest_is_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reviewed").mkdir()
    monkeypatch.chdir(tmp_path)
    arguments, containers = prepare(tmp_path, ingest={"extra_training_source": "reviewed", "split_seed": 1})
    assert arguments["ingest"] == {"extra_training_source": str(tmp_path / "reviewed"), "split_seed": 1}
    assert mounts(containers)[str(tmp_path / "reviewed")] is True


def test_names_and_addresses_are_not_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("digits", "dev", "golden"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    given = {"store": "s3://models/x", "source": "digits", "input": "golden", "environment": "dev", "output": "", "name": "pets"}
    arguments, containers = in_containers(given, tmp_path, "s3://models/checkpoints")
    assert arguments == given
    assert set(mounts(containers)) == {str(tmp_path / "tmp"), str(tmp_path / "cache")}


def test_an_environment_file_and_scoring_paths_are_mounted(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("policy: {}\n")
    (tmp_path / "in.parquet").touch()
    _, containers = prepare(
        tmp_path, environment=str(tmp_path / "own.yaml"), input=str(tmp_path / "in.parquet"), output=str(tmp_path / "out")
    )
    found = mounts(containers)
    assert found[str(tmp_path / "own.yaml")] is True
    assert found[str(tmp_path / "in.parquet")] is True
    assert found[str(tmp_path / "out")] is False


def test_storage_settings_go_with_their_files_and_nothing_else(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".aws").mkdir()
    (home / ".aws" / "credentials").touch()
    (tmp_path / "ca.pem").touch()
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("PENSTOCK_S3_ADDRESSING_STYLE", "path")
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    _, containers = prepare(tmp_path)
    environment = containers["environment"]
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9000"
    assert environment["PENSTOCK_S3_ADDRESSING_STYLE"] == "path"
    assert environment["AWS_SHARED_CREDENTIALS_FILE"] == str(home / ".aws/credentials")
    assert "GITHUB_TOKEN" not in environment
    assert "PATH" not in environment
    assert mounts(containers)[str(tmp_path / "ca.pem")] is True
    assert mounts(containers)[str(home / ".aws/credentials")] is True


def test_keys_and_what_an_environment_allows_hold_in_containers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them a run would publish unsigned, verify nothing, and let any environment decide."""
    monkeypatch.chdir(tmp_path)
    for name in ("signing.pem", "verify.pem"):
        (tmp_path / name).touch()
    monkeypatch.setenv("PENSTOCK_SIGNING_KEY", "signing.pem")
    monkeypatch.setenv("PENSTOCK_SIGNING_PASSWORD", "secret")
    monkeypatch.setenv("PENSTOCK_VERIFY_KEY", str(tmp_path / "verify.pem"))
    monkeypatch.setenv("PENSTOCK_ENVIRONMENT", "prod")
    _, containers = prepare(tmp_path)
    environment = containers["environment"]
    assert environment["PENSTOCK_SIGNING_KEY"] == str(tmp_path / "signing.pem")
    assert (environment["PENSTOCK_SIGNING_PASSWORD"], environment["PENSTOCK_ENVIRONMENT"]) == ("secret", "prod")
    assert mounts(containers)[str(tmp_path / "signing.pem")] is True
    assert mounts(containers)[str(tmp_path / "verify.pem")] is True


def test_secrets_go_to_the_containers_and_not_into_the_runs_folder(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sekret")
    given: dict[str, Any] = {}
    monkeypatch.setattr("pipelines.local_runner.container_runner", lambda containers, run: given.update(containers))

    def begin(command: list[str], **_: Any) -> None:
        local_runner._runner(json.loads(Path(command[-1]).read_text())["containers"])
        raise OSError("begun")

    monkeypatch.setattr("pipelines.local.subprocess.Popen", begin)
    for folder in ("tmp", "artifacts"):
        (tmp_path / "run" / folder).mkdir(parents=True)
    with pytest.raises(OSError, match="begun"):
        run_local(
            "training",
            {"store": str(tmp_path / "store")},
            tmp_path / "run",
            lambda kind, step, text: None,
            str(tmp_path / "c"),
            docker=True,
        )
    assert given["environment"]["AWS_SECRET_ACCESS_KEY"] == "sekret"
    assert "sekret" not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))


def test_steps_run_as_the_user_and_locked_down(tmp_path: Path) -> None:
    _, containers = prepare(tmp_path)
    assert containers["user"] == f"{os.getuid()}:{os.getgid()}"
    assert containers["read_only"] is True
    assert containers["cap_drop"] == ["ALL"]
    assert "device_requests" not in containers


def test_gpus_are_given_to_the_containers(tmp_path: Path) -> None:
    _, containers = prepare(tmp_path, gpus="1")
    assert containers["device_requests"] == [{"count": 1, "capabilities": [["gpu"]]}]


def test_checkpoints_are_a_folder_or_an_address(tmp_path: Path, home: Path) -> None:
    _, containers = in_containers({}, tmp_path, "s3://models/checkpoints")
    assert containers["environment"]["PENSTOCK_CHECKPOINTS"] == "s3://models/checkpoints"
    _, containers = in_containers({}, tmp_path, str(tmp_path / "checkpoints"))
    assert mounts(containers)[str(tmp_path / "checkpoints")] is False
    assert containers["environment"]["PENSTOCK_CHECKPOINTS"] == str(tmp_path / "checkpoints")


def test_an_output_that_is_not_there_yet_is_made_where_the_run_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, containers = prepare(tmp_path, output="scores", input="absent")
    assert arguments["output"] == str(tmp_path / "scores")
    assert mounts(containers)[str(tmp_path / "scores")] is False
    assert arguments["input"] == "absent"  # the step says what is wrong with it
