import pytest

from components.classifier.errors import UsageError
from components.settings.serving import KServeSettings, check_owner, check_store, clean_token


def test_a_run_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_KSERVE_MODE", "Knative")
    monkeypatch.setenv("PENSTOCK_KSERVE_HOST", "digits.example")
    monkeypatch.setenv("PENSTOCK_KSERVE_TOKEN", "secret")
    settings = KServeSettings.read({"mode": "Standard", "timeout_seconds": 60.0, "min_replicas": 2.0, "host": ""}, "team")
    assert (settings.mode, settings.host, settings.namespace, settings.min_replicas) == ("Standard", "digits.example", "team", 2)
    assert settings.token.get_secret_value() == "secret"
    assert "secret" not in repr(settings)


def test_a_token_loses_its_line_end_and_one_that_no_header_carries_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_KSERVE_TOKEN", "sekret\n")
    assert KServeSettings.read({}).token.get_secret_value() == "sekret"
    for token in ("sek\nret", "sekret\x00", "sekrét"):
        with pytest.raises(UsageError, match="token of X holds characters that no HTTP header can carry") as caught:
            clean_token(token, "X")
        assert "sek" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mood": "Standard"}, "no setting 'mood' .did you mean 'mode'.*; it takes namespace, service, mode"),
        ({"token": "t"}, "PENSTOCK_KSERVE_TOKEN"),
        ({"mode": "Fast"}, "mode: .*Standard"),
        ({"canary_steps": [10]}, "canary_steps need mode Knative"),
        ({"canary_steps": [50, 10], "mode": "Knative"}, "must rise"),
        ({"canary_steps": [100], "mode": "Knative"}, "less than or equal to 99"),
        ({"canary": True, "mode": "Knative"}, "set canary_steps"),
        ({"min_replicas": 3, "max_replicas": 2}, "below min_replicas"),
        ({"url": "gateway.example"}, "https://gateway.example"),
        ({"namespace": "Team A"}, "namespace"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        KServeSettings.read(values)


@pytest.mark.parametrize("name", ["Digits", "1digits", "my.model", "d" * 50, "digits-"])
def test_a_name_that_kserve_refuses_is_refused_before(name: str) -> None:
    with pytest.raises(UsageError, match=r"name one by serving\.service"):
        KServeSettings().service_name(name)
    assert KServeSettings.read({"service": "digits"}).service_name(name) == "digits"


def test_a_store_that_kserve_cannot_read_is_refused_with_the_remedy() -> None:
    for url in ("/tmp/store", "memory://x", "file:///store"):
        with pytest.raises(UsageError, match=r"s3://bucket/prefix, not .*; publish there first"):
            check_store(url)
    check_store("s3://models/penstock")


def test_a_service_of_another_store_or_name_is_refused_with_both_addresses_and_champions() -> None:
    ours = "s3://penstock/models/digits/"
    for serves in ("s3://other/models/digits/v7/", "s3://penstock/models/digitsb/v7/"):
        with pytest.raises(UsageError, match=rf"web serves {serves} \(champion v7\), which is not of {ours} \(champion v2\).*take_over"):
            check_owner("web", serves, ours, "v2", False)
        check_owner("web", serves, ours, "v2", True)
    with pytest.raises(UsageError, match="champion none: nothing was deployed"):
        check_owner("web", "s3://other/x/", ours, "", False)
    check_owner("web", f"{ours}v1/", ours, "v2", False)
    check_owner("web", "", ours, "", False)
