"""What the jobs of other operators need in a cluster: their kinds, and a step's account with one Role of the manifests and nothing else."""

import gzip
import json
import time
from pathlib import Path
from typing import Any

import requests
import yaml

from tests.cluster.api import Api
from tests.cluster.place import ROOT

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def bound_account(api: Api, namespace: str, role: Path, kubeconfig: Path) -> None:
    """Make the account `steps`, bind a Role to it, and write a kubeconfig of it."""
    inside, rights = f"/api/v1/namespaces/{namespace}", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    made: dict[str, Any] = yaml.safe_load(role.read_text())
    name = made["metadata"]["name"]
    api.ask("POST", f"{rights}/roles", made)
    api.ask("POST", f"{inside}/serviceaccounts", {"metadata": {"name": "steps"}})
    bound = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "steps", "namespace": namespace}],
    }
    api.ask("POST", f"{rights}/rolebindings", bound)
    token = api.ask("POST", f"{inside}/serviceaccounts/steps/token", {"spec": {"expirationSeconds": 3600}})["status"]["token"]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "steps", "namespace": namespace}}],
        "clusters": [{"name": "c", "cluster": {"server": api.server, "certificate-authority-data": api.ca}}],
        "users": [{"name": "steps", "user": {"token": token}}],
    }
    kubeconfig.write_text(yaml.safe_dump(config))


def define(api: Api, kind: str, served: str) -> None:
    """Give the cluster a kind of tests/manifests/crds, where it has none, and wait until its list is served at a path."""
    definition = json.loads(gzip.decompress((ROOT / "tests" / "manifests" / "crds" / f"{kind}.json.gz").read_bytes()))
    name = definition["metadata"]["name"]
    if api.find(f"{DEFINITIONS}/{name}") is None:
        try:
            api.ask("POST", DEFINITIONS, definition)
        except requests.HTTPError as error:
            if error.response is None or error.response.status_code != 409:  # another process of tests was faster
                raise
    end = time.monotonic() + 60
    while not _is_served(api, served):
        assert time.monotonic() < end, f"{name} are not served"
        time.sleep(0.2)


def _is_served(api: Api, path: str) -> bool:
    """Whether a new kind is served: at first the API server answers 404, then 429 while it makes room for it."""
    try:
        return api.find(path) is not None
    except requests.HTTPError as error:
        if error.response is not None and error.response.status_code == 429:
            return False
        raise
