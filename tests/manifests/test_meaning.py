"""What the manifests say fits the code, the other manifests and what people were told."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from components.bundle.environment import load_environment
from components.deploy.kserve.service import render
from components.doctor.seen import STEPS_SECRET
from components.predictor.settings import PredictorSettings
from components.registry.signing import SigningSettings
from components.settings.serving import KServeSettings
from components.storage.s3_settings import S3Settings
from pipelines import steps
from tests.manifests.building import EXAMPLE, MANIFESTS, ROOT, Object, built, composed, folders, kustomize, of_kind, only

pytestmark = pytest.mark.skipif(not kustomize(), reason="neither kustomize nor kubectl is installed; .ci/kustomize builds one")

BASE = MANIFESTS / "base"
KUSTOMIZATIONS = folders("Kustomization")
S3 = "serving.kserve.io/s3-"


def container_of(objects: list[Object]) -> Object:
    container: Object = only(objects, "ServingRuntime")["spec"]["containers"][0]
    return container


def variables_of(objects: list[Object]) -> dict[str, str]:
    return {it["name"]: it["value"] for it in container_of(objects)["env"]}


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [it for it in of_kind(objects, kind) if it["metadata"]["name"] == name]
    return found


def test_each_image_stands_in_one_place_with_this_release_s_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    ours = [file for file in MANIFESTS.rglob("*.yaml") if "examples" not in file.parts]
    places = [file for file in ours if re.search(r"newTag|newName|image: *\S+[:@]", file.read_text())]
    assert sorted(places) == [
        BASE / "kustomization.yaml",
        *(MANIFESTS / "components" / it / "kustomization.yaml" for it in ("trainer", "watch")),
    ]
    for place in places:
        assert [it["newTag"] for it in yaml.safe_load(place.read_text())["images"]] == [version]
    assert container_of(built(BASE))["image"] == f"penstock-predictor:{version}"


def test_a_registry_is_set_by_three_lines(tmp_path: Path) -> None:
    images = [{"name": "penstock-predictor", "newName": "registry.example/penstock-predictor", "digest": f"sha256:{'0' * 64}"}]
    assert container_of(composed(tmp_path / "mine", images=images))["image"] == f"registry.example/penstock-predictor@sha256:{'0' * 64}"


def test_no_image_can_move() -> None:
    for folder in KUSTOMIZATIONS:
        for runtime in of_kind(built(folder), "ServingRuntime"):
            assert re.fullmatch(r"[a-z0-9./-]+:[0-9][\w.-]*", runtime["spec"]["containers"][0]["image"])


@pytest.mark.parametrize("folder", [BASE, *[it for it in KUSTOMIZATIONS if "overlays" in it.parts]], ids=lambda it: it.name)
def test_the_predictor_knows_every_setting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not of_kind(built(folder), "ServingRuntime"):
        return
    for name, value in variables_of(built(folder)).items():
        assert name.removeprefix("PENSTOCK_").lower() in PredictorSettings.model_fields
        monkeypatch.setenv(name, value)
    arguments = [it.removeprefix("--").split("=") for it in container_of(built(folder))["args"]]
    assert {name for name, _ in arguments} <= PredictorSettings.model_fields.keys()
    PredictorSettings(**{name: value.replace("{{.Name}}", "digits") for name, value in arguments})


def test_the_review_store_is_set_as_the_page_says(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "review.md").read_text("utf-8"), re.DOTALL)
    page = yaml.safe_load(block)
    assert (page["resources"], page["components"]) == (["../manifests/overlays/prod"], ["../manifests/components/review"])
    objects = composed(tmp_path / "mine", "review", resources=(MANIFESTS / "overlays" / "prod",), patches=page["patches"])
    variables = variables_of(objects)
    assert (variables["PENSTOCK_REVIEW_STORE"], variables["PENSTOCK_REPLICAS"]) == ("s3://bucket/penstock", "3")
    assert {"review_store", "replicas", "audit_key"} <= PredictorSettings.model_fields.keys()


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_an_overlay_serves_as_its_environment_says(name: str) -> None:
    variables, serving = variables_of(built(MANIFESTS / "overlays" / name)), load_environment(name).serving
    assert float(variables["PENSTOCK_REVIEW_THRESHOLD"]) == serving.review_threshold
    assert float(variables["PENSTOCK_AUDIT_RATE"]) == serving.audit_rate


def test_a_pod_that_ends_has_the_time_it_needs() -> None:
    container, variables = container_of(built(BASE)), variables_of(built(BASE))
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = pause + float(variables["PENSTOCK_DRAIN_SECONDS"]) + float(variables["PENSTOCK_GRACE_SECONDS"])
    assert pause == 5
    assert only(built(EXAMPLE), "InferenceService")["spec"]["predictor"]["terminationGracePeriodSeconds"] >= needed


def test_the_steps_find_their_secret_and_their_settings() -> None:
    objects = built(BASE)
    assert named(objects, "Secret", steps.STORAGE_SECRET)
    assert steps.STORAGE_SECRET == STEPS_SECRET, "what doctor looks at"
    assert named(objects, "ConfigMap", steps.STORAGE_CONFIG)


def test_the_steps_read_every_setting_of_the_store(tmp_path: Path) -> None:
    for component in ("s3-minio", "s3-seaweedfs", "private-ca"):
        assert only(composed(tmp_path / component, component), "ConfigMap")["data"].keys() <= set(steps._CONFIG_KEYS)
    ours = {key for key in steps._CONFIG_KEYS if key.startswith("PENSTOCK_S3_")}
    assert {key.removeprefix("PENSTOCK_S3_").lower() for key in ours} <= S3Settings.model_fields.keys()


def test_no_key_is_in_the_manifests_and_none_is_wiped_when_they_are_applied_again() -> None:
    for folder in KUSTOMIZATIONS:
        for secret in of_kind(built(folder), "Secret"):
            assert not {"data", "stringData"} & secret.keys()


def test_the_example_names_what_is_there_and_ends_its_address_with_a_slash() -> None:
    predictor = only(built(EXAMPLE), "InferenceService")["spec"]["predictor"]
    objects = built(BASE)
    version = only(built(EXAMPLE), "InferenceService")["metadata"]["annotations"]["penstock/model-version"]
    assert predictor["model"]["storageUri"].endswith(f"/{version}/")
    named(objects, "ServingRuntime", predictor["model"]["runtime"])
    account = named(objects, "ServiceAccount", predictor["serviceAccountName"])
    assert predictor["automountServiceAccountToken"] is account["automountServiceAccountToken"] is False
    assert account["secrets"] == [{"name": "penstock-s3"}]


def test_no_overlay_has_a_service_that_would_undo_the_pipeline_s() -> None:
    for folder in KUSTOMIZATIONS:
        assert bool(of_kind(built(folder), "InferenceService")) == (folder == EXAMPLE)


def test_a_prefix_keeps_the_names_together(tmp_path: Path) -> None:
    objects = composed(tmp_path / "mine", "review", namePrefix="team-", nameSuffix="-b")
    predictor = only(objects, "InferenceService")["spec"]["predictor"]
    assert predictor["model"]["runtime"] == "team-penstock-onnx-v1-b"
    assert predictor["serviceAccountName"] == "team-penstock-predictor-b"
    assert named(objects, "ServiceAccount", "team-penstock-predictor-b")["secrets"] == [{"name": "team-penstock-s3-b"}]
    sources = container_of(objects)["envFrom"]
    assert sources[0]["configMapRef"]["name"] == "team-penstock-storage-b"
    assert sources[1]["secretRef"]["name"] == "team-penstock-review-b"
    binding = only(objects, "RoleBinding")
    assert binding["roleRef"]["name"] == binding["subjects"][0]["name"] == "team-penstock-deployer-b"


def test_the_deploy_step_may_do_this_and_no_more() -> None:
    rules = only(built(BASE), "Role")["rules"]
    allowed = {f"{group}/{it}".lstrip("/"): set(rule["verbs"]) for rule in rules for group in rule["apiGroups"] for it in rule["resources"]}
    assert allowed == {
        "serving.kserve.io/inferenceservices": {"get", "list", "watch", "create", "patch", "delete"},
        "serving.kserve.io/servingruntimes": {"get"},
        "serviceaccounts": {"get"},
        "apps/deployments": {"get", "list"},
        "apps/replicasets": {"get", "list"},
        "pods": {"get", "list"},
        "events": {"get", "list"},
        "pods/log": {"get"},
    }


def test_standalone_pipelines_may_deploy_and_reach_the_same_store() -> None:
    objects = built(MANIFESTS / "overlays" / "standalone-kfp")
    assert {"kind": "ServiceAccount", "name": "pipeline-runner", "namespace": "kubeflow"} in only(objects, "RoleBinding")["subjects"]
    secrets, configs = of_kind(objects, "Secret"), of_kind(objects, "ConfigMap")
    assert {it["metadata"]["namespace"] for it in secrets} == {it["metadata"]["namespace"] for it in configs} == {"kubeflow", "penstock"}
    assert len({str(it["metadata"]["annotations"]) for it in secrets}) == len({str(it["data"]) for it in configs}) == 1


def test_a_profile_needs_no_role_and_lets_no_other_tenant_in() -> None:
    objects = built(MANIFESTS / "overlays" / "kubeflow-profile")
    assert not {it["kind"] for it in objects} & {"Role", "RoleBinding", "Namespace", "InferenceService"}
    callers = [it["from"] for it in only(objects, "NetworkPolicy")["spec"]["ingress"]]
    assert callers == [[{"podSelector": {}}, {"namespaceSelector": callers[0][1]["namespaceSelector"]}]]
    assert only(objects, "ServingRuntime")["spec"]["labels"]["sidecar.istio.io/inject"] == "false"


@pytest.mark.parametrize(("component", "port"), [("s3-minio", 9000), ("s3-seaweedfs", 8333)])
def test_an_object_store_s_address_is_told_to_the_steps_and_to_kserve_and_let_through(component: str, port: int, tmp_path: Path) -> None:
    objects = composed(tmp_path / "mine", component)
    address = only(objects, "ConfigMap")["data"]["AWS_ENDPOINT_URL"]
    annotations = only(objects, "Secret")["metadata"]["annotations"]
    assert address == f"http://{annotations[f'{S3}endpoint']}"
    assert annotations[f"{S3}endpoint"].endswith(f":{port}")
    assert annotations[f"{S3}usehttps"] == "0"
    assert port in ports(only(objects, "NetworkPolicy")["spec"]["egress"])


def test_a_private_authority_reaches_steps_kserve_and_predictor(tmp_path: Path) -> None:
    objects = composed(tmp_path / "mine", "s3-minio", "private-ca", "review")
    assert only(objects, "ConfigMap")["data"]["AWS_CA_BUNDLE"] == f"{steps.CA_FOLDER}/cabundle.crt"
    assert named(objects, "Secret", steps.STORAGE_SECRET)["metadata"]["annotations"][f"{S3}cabundle-configmap"] == steps.CA_CONFIG
    runtime = only(objects, "ServingRuntime")["spec"]
    assert {"name": "ca", "mountPath": steps.CA_FOLDER, "readOnly": True} in runtime["containers"][0]["volumeMounts"]
    assert {"name": "ca", "configMap": {"name": steps.CA_CONFIG}} in runtime["volumes"]


def test_the_public_key_reaches_predictors_by_the_name_that_the_steps_use(tmp_path: Path) -> None:
    objects = composed(tmp_path / "mine", "signing")
    runtime = only(objects, "ServingRuntime")["spec"]
    assert {"name": "verify", "mountPath": steps.VERIFY_FOLDER, "readOnly": True} in runtime["containers"][0]["volumeMounts"]
    assert {"name": "verify", "configMap": {"name": steps.VERIFY_CONFIG}} in runtime["volumes"]
    assert variables_of(objects)["PENSTOCK_VERIFY_KEY"] == f"{steps.VERIFY_FOLDER}/verify.pem"
    assert "verify_key" in SigningSettings.model_fields


def test_a_role_takes_the_place_of_keys(tmp_path: Path) -> None:
    objects = composed(tmp_path / "mine", "irsa")
    account = named(objects, "ServiceAccount", "penstock-predictor")
    assert not of_kind(objects, "Secret")
    assert "secrets" not in account
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].startswith("arn:aws:iam::")


def test_the_predictor_never_gets_the_keys_of_the_pipelines(tmp_path: Path) -> None:
    objects = composed(tmp_path / "mine", "s3-minio", "review", "signing", "private-ca")
    assert steps.STORAGE_SECRET not in yaml.safe_dump(only(objects, "ServingRuntime"))
    account = named(objects, "ServiceAccount", "penstock-predictor")
    assert account["secrets"] == [{"name": steps.STORAGE_SECRET}], "for KServe's init container, which KServe reads it for"
    assert "data" not in named(objects, "Secret", "penstock-review")


def test_the_admission_policy_lets_through_what_the_deploy_step_renders(tmp_path: Path) -> None:
    """What it refuses is tried on an API server; here, that all which the step may set stands in it."""
    objects = composed(tmp_path / "mine", "restricted", "deployer-policy", resources=(BASE,))
    namespace = only(objects, "Namespace")["metadata"]
    selector = only(objects, "ValidatingAdmissionPolicyBinding")["spec"]["matchResources"]["namespaceSelector"]["matchLabels"]
    assert selector.items() <= namespace["labels"].items()
    assert namespace["annotations"]["penstock/store"].startswith("s3://")
    text, settings = yaml.safe_dump(only(objects, "ValidatingAdmissionPolicy"), width=10_000), KServeSettings()
    variables = {"PENSTOCK_VERIFY_NAME", "PENSTOCK_SHADOW_SHARE", *load_environment("prod").serving.variables()}
    made = [
        render("digits", "v", "s3://b/", KServeSettings(mode=mode), dict.fromkeys(variables, "x"), percent=1)
        for mode in ("Standard", "Knative")
    ]
    for it in made:
        predictor, metadata = it["spec"]["predictor"], it["metadata"]
        allowed = {*predictor, *predictor["model"], *predictor.get("securityContext", {}), *metadata["labels"], *variables}
        allowed |= {key for key in metadata["annotations"] if not key.startswith("penstock/")}
        assert [key for key in allowed if f"'{key}'" not in text] == []
    assert [it for it in (settings.runtime, settings.model_format, settings.service_account) if f"'{it}'" not in text] == []


def test_keda_asks_for_the_service_s_own_requests(tmp_path: Path) -> None:
    (metric,) = only(composed(tmp_path / "mine", "keda"), "InferenceService")["spec"]["predictor"]["autoScaling"]["metrics"]
    assert metric["external"]["metric"]["query"] == 'sum(rate(penstock_requests_total{inferenceservice="digits"}[1m]))'


def test_the_policies_select_what_the_runtime_makes() -> None:
    objects = built(BASE)
    labels = only(objects, "ServingRuntime")["spec"]["labels"]
    for selector in (only(objects, "NetworkPolicy")["spec"]["podSelector"], only(objects, "PodDisruptionBudget")["spec"]["selector"]):
        assert selector["matchLabels"].items() <= labels.items()
    assert ports(only(objects, "NetworkPolicy")["spec"]["ingress"]) == {it["containerPort"] for it in container_of(objects)["ports"]}
    assert {53, 443} <= ports(only(objects, "NetworkPolicy")["spec"]["egress"])


def test_monitoring_goes_where_the_predictors_are(tmp_path: Path) -> None:
    objects = composed(tmp_path / "mine", "prometheus")
    (endpoint,) = only(objects, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["targetPort"] in ports(only(objects, "NetworkPolicy")["spec"]["ingress"])
    assert {it["metadata"]["namespace"] for it in objects} == {"mine"}


def test_every_component_and_overlay_is_in_the_readme() -> None:
    text = (MANIFESTS / "README.md").read_text()
    for folder in [*folders("Component"), *(MANIFESTS / "overlays").iterdir()]:
        assert f"`{folder.relative_to(MANIFESTS)}`" in text
    for file in MANIFESTS.rglob("*.yaml"):
        list(yaml.safe_load_all(file.read_text()))


def ports(rules: list[Object]) -> set[int]:
    return {port["port"] for rule in rules for port in rule["ports"]}
