"""The InferenceService as a value."""

import copy

import pytest

from components.classifier.errors import UsageError
from components.deploy.kserve.canary import CANARY, is_canary, refuse_other
from components.deploy.kserve.service import (
    DIGEST,
    MODE,
    Object,
    adoption_patch,
    agrees,
    applied_part,
    digest_of,
    keep_mode_name,
    mode_of,
    render,
    uri_of,
    version_of,
    with_lock,
)
from components.settings.serving import KServeSettings

MODELS = "s3://models/penstock/models/digits/"
VERSION = "20260102-030405-0123456789ab"
URI = f"{MODELS}{VERSION}/"


def rendered(percent: int | None = None, **settings: object) -> Object:
    return render("digits", VERSION, URI, KServeSettings.read(settings), {"PENSTOCK_REVIEW_THRESHOLD": "0.9"}, percent=percent)


def live(**settings: object) -> Object:
    it = rendered(**settings)
    it["metadata"] |= {"uid": "u", "resourceVersion": "7", "generation": 3}
    return it


def test_a_service_names_the_runtime_the_version_and_its_address_with_a_slash() -> None:
    it = rendered()
    assert it["metadata"]["annotations"] == {
        DIGEST: digest_of(it),
        MODE: "Standard",
        "penstock/model-version": VERSION,
        "serving.kserve.io/autoscalerClass": "none",
    }
    predictor = it["spec"]["predictor"]
    assert predictor["model"]["storageUri"] == URI
    assert predictor["model"]["runtime"] == "penstock-onnx-v1"
    assert predictor["model"]["env"] == [{"name": "PENSTOCK_REVIEW_THRESHOLD", "value": "0.9"}]
    assert predictor["deploymentStrategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert predictor["automountServiceAccountToken"] is False
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (1, 1)


@pytest.mark.parametrize("mode", ["Knative", "Serverless"])
def test_knative_gets_nothing_that_its_webhook_refuses(mode: str) -> None:
    it = rendered(mode=mode, percent=10)
    assert it["metadata"]["annotations"][MODE] == mode
    assert it["spec"]["predictor"]["canaryTrafficPercent"] == 10
    assert not {"deploymentStrategy", "securityContext", "terminationGracePeriodSeconds"} & it["spec"]["predictor"].keys()


def test_an_autoscaler_is_only_left_out_where_it_has_nothing_to_decide() -> None:
    for replicas in ({"max_replicas": 4}, {"min_replicas": 4}):
        assert "serving.kserve.io/autoscalerClass" not in rendered(**replicas)["metadata"]["annotations"]


def test_two_versions_differ_and_one_is_the_same_each_time() -> None:
    assert rendered() == rendered()
    other = render("digits", "20260103-030405-0123456789ab", f"{MODELS}20260103-030405-0123456789ab/", KServeSettings())
    assert not agrees(live(), other)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda it: it["spec"]["predictor"].update(timeout=60), True),  # another's field
        (lambda it: it["metadata"]["labels"].update(team="a"), True),
        (lambda it: it["spec"]["predictor"].update(canaryTrafficPercent=10), False),
        (lambda it: it["spec"]["predictor"].update(minReplicas=2), False),
        (lambda it: it["spec"]["predictor"]["model"].update(env=[]), False),
        (lambda it: it["metadata"]["annotations"].pop(MODE), False),
    ],
)
def test_agreement_is_about_our_fields(change: object, same: bool) -> None:
    it = live()
    change(it)
    assert agrees(it, rendered()) is same


def test_the_digest_tells_what_makes_other_pods_and_no_more() -> None:
    """In Knative a share of the traffic, and anywhere a number of pods, must not start new ones."""
    own = digest_of(rendered())
    assert len(own) == 32
    for changed in ({"runtime": "penstock-onnx-v2"}, {"service_account": "other"}):
        assert digest_of(rendered(**changed)) != own
    for same in ({"min_replicas": 3}, {"max_replicas": 3}):
        assert digest_of(rendered(**same)) == own
    knative = digest_of(rendered(mode="Knative"))
    assert digest_of(rendered(10, mode="Knative")) == knative
    assert digest_of(render("digits", VERSION, URI, KServeSettings(), {})) != own


def test_the_lock_is_what_was_read() -> None:
    locked = with_lock(rendered(), live())
    assert (locked["metadata"]["resourceVersion"], locked["metadata"]["uid"]) == ("7", "u")
    assert "resourceVersion" not in rendered()["metadata"]


@pytest.mark.parametrize(
    ("uri", "version"),
    [(URI, VERSION), (URI.rstrip("/"), VERSION), ("s3://elsewhere/x/", ""), ("", "")],
)
def test_the_version_is_read_from_the_address(uri: str, version: str) -> None:
    it = live()
    it["spec"]["predictor"]["model"]["storageUri"] = uri
    assert version_of(it, MODELS) == version
    assert uri_of(it) == uri
    assert version_of(None, MODELS) == ""


def test_an_old_name_of_the_mode_is_kept() -> None:
    old = live()
    old["metadata"]["annotations"][MODE] = "RawDeployment"
    assert keep_mode_name(rendered(), old)["metadata"]["annotations"][MODE] == "RawDeployment"
    assert keep_mode_name(rendered(mode="Knative"), old)["metadata"]["annotations"][MODE] == "Knative"
    assert mode_of(old) == "RawDeployment"


def owned(it: Object, operation: str = "Apply", manager: str = "penstock") -> Object:
    fields = {
        "f:metadata": {"f:annotations": {f"f:{MODE}": {}, "f:penstock/model-version": {}}},
        "f:spec": {
            "f:predictor": {"f:minReplicas": {}, "f:model": {"f:storageUri": {}, "f:env": {'k:{"name":"A"}': {".": {}, "f:value": {}}}}}
        },
    }
    it["metadata"]["managedFields"] = [
        {"manager": "manager", "operation": "Update", "fieldsV1": {"f:status": {}}, "subresource": "status"},
        {"manager": manager, "operation": operation, "fieldsV1": fields},
    ]
    return it


def test_what_is_put_back_is_our_part_and_no_other_tools() -> None:
    it = live()
    it["spec"]["predictor"]["timeout"] = 60
    it["spec"]["predictor"]["model"]["env"] = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    part = applied_part(owned(it))
    assert part["spec"] == {"predictor": {"minReplicas": 1, "model": {"storageUri": URI, "env": [{"name": "A", "value": "1"}]}}}
    assert part["metadata"] == {
        "annotations": {MODE: "Standard", "penstock/model-version": VERSION}, "name": "digits", "namespace": "default"
    }  # fmt: skip


def test_an_object_of_which_nothing_is_ours_is_put_back_whole() -> None:
    it = owned(live(), manager="kubectl")
    part = applied_part(it)
    assert part["spec"] == it["spec"]
    assert "resourceVersion" not in part["metadata"]


def test_a_creation_is_made_to_count_as_an_apply_once() -> None:
    created = owned(live(), "Update")
    operations = adoption_patch(created)
    assert operations is not None
    entries = operations[0]["value"]
    assert [(e["manager"], e["operation"]) for e in entries] == [("penstock", "Apply"), ("manager", "Update")]
    assert operations[1] == {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"}
    after = copy.deepcopy(created)
    after["metadata"]["managedFields"] = entries
    assert adoption_patch(after) is None


def test_only_what_is_marked_as_the_canary_of_a_service_is_taken_for_one() -> None:
    other, mine = live(), live()
    other["metadata"]["name"] = mine["metadata"]["name"] = "digits-canary"
    mine["metadata"]["annotations"][CANARY] = "digits"
    assert (is_canary(mine, "digits"), is_canary(mine, "letters"), is_canary(other, "digits")) == (True, False, False)
    refuse_other(mine, "digits")
    with pytest.raises(UsageError, match=rf"digits-canary is a service of its own, which serves {URI}, and not a canary of digits"):
        refuse_other(other, "digits")
    del other["metadata"]["annotations"]
    assert not is_canary(other, "digits")
