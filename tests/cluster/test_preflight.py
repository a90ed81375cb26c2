"""What preflight says of the service that a run would change, by the API server and the rights of the deployer."""

import pytest

from components.classifier.errors import UsageError
from components.doctor.before import check_service
from tests.cluster.place import Place


def test_a_service_is_told_and_one_of_another_store_is_refused_before_any_work(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = place.registry.store.url
    given = {"target": "kserve", "store": store, "name": "digits", "namespace": place.namespace, "serving": {}}
    assert check_service(given | {"target": "local"}) == ""
    assert check_service(given) == f"service: digits in {place.namespace} serves nothing yet"
    place.deploy("v1", settle_seconds=0)
    assert check_service(given) == f"service: digits in {place.namespace} serves {place.registry.uri(place.versions['v1'])}"
    with pytest.raises(UsageError, match=rf"not of {store}-typo/models/digits/ \(champion none: nothing was deployed\)"):
        check_service(given | {"store": f"{store}-typo"})
    taken = check_service(given | {"store": f"{store}-typo", "serving": {"take_over": True}})
    assert f"but {store}-typo holds no version of digits" in taken
    assert "cannot be looked at: the API server answers 403" in check_service(given | {"namespace": "kube-system"})
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    monkeypatch.setenv("HOME", "/nowhere")
    assert "cannot be looked at" in check_service(given)
