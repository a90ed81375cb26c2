"""What lint reads, what it leaves out, and what it prints."""

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kfp import compiler, dsl
from typer.testing import CliRunner

from components.lint.documents import parse_source
from components.lint.linter import Report, check, fix, lint
from components.lint.output import as_json, as_sarif
from pipelines.catalogue import PIPELINES
from pipelines.cli import app
from tests.lint.pipelines import compile_case
from tests.manifests.building import MANIFESTS, folders, kustomize, text_of

ROOT = Path(__file__).parents[2]
PENSTOCK = [sys.executable, "-c", "from pipelines.cli import main; main()"]
FIXTURES = Path(__file__).parent / "fixtures"
SERVICE = (FIXTURES / "storage-uri-without-slash.bad.yaml").read_text()
DEPLOYMENT = (FIXTURES / "root-container.good.yaml").read_text()


def rules(text: str, file: str = "a.yaml") -> list[str]:
    """The rules that report a text."""
    return [it.rule.id for it in check([parse_source(file, text.encode())]).findings]


def run(*arguments: str, given: str = "") -> tuple[int, str]:
    """Exit code and standard output of `penstock lint`."""
    done = CliRunner().invoke(app, ["lint", *arguments], input=given)
    return done.exit_code, done.stdout


def test_a_finding_has_its_place() -> None:
    (it,) = check([parse_source("service.yaml", b"# a comment\n---\n" + SERVICE.encode())]).findings
    assert (it.file, it.line, it.path) == ("service.yaml", 14, "$.spec.predictor.model.storageUri")


def test_keys_with_dots_are_quoted_in_paths() -> None:
    report = lint([str(FIXTURES / "s3-endpoint-form.bad.yaml")])
    assert [it.path for it in report.findings] == ["$.metadata.annotations['serving.kserve.io/s3-endpoint']"]


def test_items_of_a_list_are_read_with_their_own_paths() -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "ConfigMap", "data": {"port": 1}}]}
    report = check([parse_source("list.json", json.dumps(listed).encode())])
    assert [(it.rule.id, it.path) for it in report.findings] == [("text-expected", "$.items[0].data.port")]


def test_one_damaged_document_does_not_hide_the_others() -> None:
    report = check([parse_source("a.yaml", f"a: [\n---\n{SERVICE}---\nb: {{\n".encode())])
    assert [it.rule.id for it in report.findings] == ["storage-uri-without-slash"]
    assert [(it.line, it.template) for it in report.unreadable] == [(2, False), (17, False)]
    assert report.failed


@pytest.mark.parametrize(
    "text",
    [
        "{{- if .Values.x }}\nkind: Pod\n{{- end }}\n",
        "apiVersion: v1\nkind: Pod\nmetadata: {{ toYaml .Values.meta | nindent 2 }}\n",
        "{% for x in y %}\n- {{ x }}\n{% endfor %}\n",
    ],
)
def test_a_template_is_skipped_and_said(text: str) -> None:
    report = check([parse_source("a.yaml", text.encode())])
    assert [it.template for it in report.unreadable] == [True]
    assert not report.failed


@pytest.mark.parametrize("image", ["{{ .Values.image }}", "${REGISTRY}/web", "$(IMAGE)"])
def test_a_value_that_a_tool_fills_in_is_not_judged(image: str) -> None:
    assert rules(DEPLOYMENT.replace("registry.example/web:1.0.0", f'"{image}"')) == []


@pytest.mark.parametrize(
    "text",
    ["", "---\n---\n", "# only a comment\n", "null\n", "- 1\n", "just text\n", "x: !Ref y\n", "x: 2020-99-99\n", "= : 1\n", "a: &a [*a]\n"],
)
def test_other_yaml_is_passed_over(text: str) -> None:
    report = check([parse_source("a.yaml", text.encode())])
    assert (report.findings, report.unreadable, report.manifests) == ([], [], 0)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x89PNG\r\n\x1a\n\x00", b"a: \x07\n", b"[" * 5000, b"x: 0b_\n"])
def test_what_is_no_yaml_is_named(content: bytes) -> None:
    assert check([parse_source("a.yaml", content)]).unreadable


def test_a_byte_order_mark_and_windows_lines_change_nothing() -> None:
    assert rules("\ufeff" + SERVICE.replace("\n", "\r\n")) == ["storage-uri-without-slash"]


@pytest.mark.parametrize(
    "line",
    [
        "storageUri: s3://models/digits/v1 # penstock: ignore[storage-uri-without-slash] one version only",
        "# penstock: ignore[x, storage-uri-without-slash]\n    storageUri: s3://models/digits/v1",
        "storageUri: s3://models/digits/v1 # penstock: ignore",
    ],
)
def test_a_comment_ignores_a_rule_on_its_line(line: str) -> None:
    assert rules(SERVICE.replace("storageUri: s3://models/digits/v1", line)) == []


def test_a_comment_ignores_only_what_it_names_and_only_there() -> None:
    assert rules(SERVICE.replace("digits/v1", "digits/v1 # penstock: ignore[latest-image]")) == ["storage-uri-without-slash"]
    assert rules(f"{SERVICE} # penstock: ignore\n---\n{SERVICE}") == ["storage-uri-without-slash"] * 2
    assert rules(f"# penstock: ignore-file[storage-uri-without-slash]\n{SERVICE}---\n{SERVICE}") == []


def test_a_comment_in_a_components_source_survives_compiling(tmp_path: Path) -> None:
    path = compile_case("cached-side-effect", "bad", tmp_path)
    text = path.read_text()
    assert rules(text) == ["cached-side-effect"]
    assert rules(text.replace("import boto3", "import boto3  # penstock: ignore[cached-side-effect]")) == []


def test_a_gpu_limit_from_a_steps_number_is_seen_too(tmp_path: Path) -> None:
    @dsl.component(base_image="registry.example/steps:1", install_kfp_package=False)
    def choose() -> int:
        return 1

    @dsl.component(base_image="registry.example/steps:1", install_kfp_package=False)
    def train() -> str:
        return "done"

    @dsl.pipeline(name="gpus")
    def pipeline() -> None:
        train().set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(choose().output)

    compiler.Compiler().compile(pipeline, str(tmp_path / "gpus.yaml"))
    assert "gpu-limit-from-integer" in {it.rule.id for it in lint([str(tmp_path)]).findings}


def test_parts_that_a_kustomization_applies_as_patches_are_no_objects(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text(DEPLOYMENT.replace("web:1.0.0", "web"))
    part = {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "x"}]}}}}
    (tmp_path / "more.yaml").write_text(json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}} | part))
    assert {it.rule.id for it in lint([str(tmp_path)]).findings} == {"latest-image", "container-without-resources", "may-run-as-root"}
    (tmp_path / "kustomization.yaml").write_text(
        "kind: Kustomization\npatches: [{path: more.yaml}]\nimages: [{name: registry.example/web, newTag: 1.0.0}]\n"
    )
    assert lint([str(tmp_path)]).findings == []
    assert lint([str(tmp_path / "web.yaml"), str(tmp_path / "more.yaml")]).findings == []


def test_a_pipeline_version_object_is_read_as_a_pipeline(tmp_path: Path) -> None:
    spec, platform = yaml.safe_load_all(compile_case("gpu-limit-from-integer", "bad", tmp_path).read_text())
    version = {"kind": "PipelineVersion", "spec": {"pipelineSpec": spec, "platformSpec": platform}}
    (it,) = check([parse_source("version.yaml", yaml.safe_dump(version).encode())]).findings
    assert it.rule.id == "gpu-limit-from-integer"
    assert it.path.startswith("$.spec.pipelineSpec.deploymentSpec.executors")


@pytest.mark.parametrize(
    ("rule", "good"),
    [
        ("storage-uri-without-slash", "storageUri: s3://models/digits/v1/"),
        ("s3-endpoint-form", "serving.kserve.io/s3-endpoint: minio.minio:9000"),
        ("text-expected", 'value: "8080"'),
    ],
)
def test_fix_changes_one_value_and_nothing_else(rule: str, good: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    before = "# kept\r\n" + (FIXTURES / f"{rule}.bad.yaml").read_text()
    path.write_text(before, newline="")
    code, _ = run("--fix", str(path))
    after = path.read_bytes().decode()
    changed = [new for old, new in zip(before.split("\n"), after.split("\n"), strict=True) if old != new]
    assert (code, [it.strip() for it in changed]) == (0, [good])


def test_fix_keeps_the_mode_of_a_file_and_what_leads_to_it(tmp_path: Path) -> None:
    secret, link = tmp_path / "secret.yaml", tmp_path / "link.yaml"
    secret.write_text(SERVICE)
    secret.chmod(0o600)
    link.symlink_to("secret.yaml")
    assert run("--fix", str(link))[0] == 0
    assert (link.is_symlink(), secret.stat().st_mode & 0o777) == (True, 0o600)
    assert secret.read_text() != SERVICE


def test_fix_keeps_quotes_and_comments() -> None:
    source = parse_source("a.yaml", SERVICE.replace("s3://models/digits/v1", "'s3://models/digits/v1' # mine").encode())
    assert "'s3://models/digits/v1/' # mine" in fix(check([source]))["a.yaml"]


def test_fix_does_not_guess_which_scheme_is_meant() -> None:
    text = (FIXTURES / "s3-endpoint-form.bad.yaml").read_text().replace("http://", "https://")
    assert fix(check([parse_source("a.yaml", text.encode())])) == {}


def test_exit_codes(tmp_path: Path) -> None:
    assert run(str(FIXTURES / "root-container.good.yaml"))[0] == 0
    assert run(str(FIXTURES / "may-run-as-root.bad.yaml"))[0] == 0, "a note is advice"
    assert run(str(FIXTURES / "root-container.bad.yaml"))[0] == 1
    assert run("--level", "error", str(FIXTURES / "root-container.bad.yaml"))[0] == 0
    assert run("--ignore", "latest-image,root-container", str(FIXTURES / "root-container.bad.yaml"))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to read"),
        (["no/such/file.yaml"], "does not exist"),
        (["--ignore", "latest-images", "-"], "did you mean 'latest-image'?"),
        (["--format", "markdown", "-"], "is for --rules"),
    ],
)
def test_wrong_use_is_refused(arguments: list[str], message: str) -> None:
    done = subprocess.run([*PENSTOCK, "lint", *arguments], capture_output=True, text=True, check=False, input="")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr


def test_standard_input_is_read() -> None:
    code, output = run("-", given=SERVICE)
    assert code == 1
    assert output.startswith("standard input:12:7: warning: storageUri s3://models/digits/v1 [storage-uri-without-slash]\n")


def test_text_explains_each_rule_once() -> None:
    _, output = run("-", given=f"{SERVICE}---\n{SERVICE}")
    assert [output.count(f"\n    {word}") for word in ("at", "why", "fix")] == [2, 1, 1]
    assert output.endswith("2 warnings in 0 pipelines and 2 manifests\n")


def test_json_has_all_of_a_finding() -> None:
    code, output = run("--format", "json", "-", given=SERVICE)
    (it,) = json.loads(output)["findings"]
    assert code == 1
    assert it.keys() == {"rule", "level", "file", "line", "column", "path", "seen", "why", "fix", "fixable"}


def test_sarif_names_rules_and_places() -> None:
    _, output = (
        run("--format", "sarif", str(FIXTURES / "latest-image.bad.yaml"), str(FIXTURES / "root-container.bad.yaml"))
        if False
        else run("--format", "sarif", str(FIXTURES / "root-container.bad.yaml"))
    )
    log = json.loads(output)
    (single,) = log["runs"]
    (result,) = single["results"]
    assert log["version"] == "2.1.0"
    assert single["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "root-container"
    assert result["level"] in ("error", "warning", "note")
    assert result["locations"][0]["physicalLocation"]["region"]["startLine"] > 1


def test_sarif_tells_of_files_that_could_not_be_read() -> None:
    log = as_sarif(check([parse_source("a b.yaml", b"a: [")]))
    (invocation,) = log["runs"][0]["invocations"]
    assert not invocation["executionSuccessful"]
    assert invocation["toolExecutionNotifications"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "a%20b.yaml"


def test_rules_are_listed() -> None:
    code, output = run("--rules")
    assert code == 0
    assert "canary-percent-in-standard-mode  error " in output
    assert {"id", "level", "title", "why", "fix"} == json.loads(run("--rules", "--format", "json")[1])[0].keys()


def test_a_projects_ignores_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[tool.penstock.lint]\nignore = ["root-container"]\n')
    assert run(str(FIXTURES / "root-container.bad.yaml"))[0] == 0


def test_importing_costs_no_heavy_library() -> None:
    code = "import sys, components.lint, pipelines.cli.lint; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"kfp", "torch", "kubernetes", "kserve", "boto3"} & set(done.stdout.split())


def test_our_own_pipelines_are_clean(tmp_path: Path) -> None:
    environment = os.environ | {"PENSTOCK_IMAGE": "registry.example/penstock-pipeline:0.1.0"}
    subprocess.run([*PENSTOCK, "compile", "--output", str(tmp_path)], env=environment, check=True, capture_output=True)
    code, output = run(str(tmp_path))
    assert (code, output) == (0, f"nothing found in {len(PIPELINES)} pipelines and 0 manifests\n")


def test_our_own_manifests_are_clean_as_files() -> None:
    report = lint([str(MANIFESTS)])
    assert (report.findings, report.unreadable) == ([], [])
    assert report.manifests > 10


@pytest.mark.skipif(not kustomize(), reason="neither kustomize nor kubectl is installed; .ci/kustomize builds one")
def test_our_own_manifests_are_clean_when_built() -> None:
    built = [parse_source(str(folder), text_of(folder).encode()) for folder in folders("Kustomization")]
    report = check(built, ["image-without-registry", "single-replica-without-budget"])  # an overlay of the user's names the registry
    assert report.findings == []


def test_a_thousand_manifests_take_seconds(tmp_path: Path) -> None:
    for number in range(500):
        (tmp_path / f"{number}.yaml").write_text(f"{SERVICE}---\n{DEPLOYMENT}")
    start = time.process_time()
    report = lint([str(tmp_path)])
    assert report.manifests == 1000
    assert time.process_time() - start < 5


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["s3://a", "{{x}}", "1Gi", "latest"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[list[object]]:
    folder = tmp_path_factory.mktemp("originals")
    pipelines = [
        ("oneof-over-cached-branch", "bad"),
        ("setting-not-an-input", "bad"),
        ("loop-over-named-output", "bad"),
        ("cached-side-effect", "bad"),
    ]
    paths = [*(compile_case(rule, kind, folder) for rule, kind in pipelines), *FIXTURES.glob("*.bad.yaml")]
    return [list(yaml.safe_load_all(path.read_text())) for path in paths]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_shape_of_a_document_ends_in_a_traceback(originals: list[list[object]], data: st.DataObject) -> None:
    documents = copy.deepcopy(data.draw(st.sampled_from(originals)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.sampled_from([it for it in documents if isinstance(it, dict) and it] or [{"x": 1}]))
        while True:
            key = (
                data.draw(st.sampled_from(sorted(place, key=str))) if isinstance(place, dict) else data.draw(st.integers(0, len(place) - 1))
            )
            below = place[key]
            if not isinstance(below, dict | list) or not below or data.draw(st.integers(0, 5)) == 0:
                place[key] = data.draw(_JUNK)
                break
            place = below
    text = "\n---\n".join(json.dumps(it, default=str) for it in documents)
    report = check([parse_source("a.yaml", text.encode("utf-8", "replace"))])
    assert isinstance(report, Report)
    json.dumps([as_json(report), as_sarif(report)])
    fix(report)
