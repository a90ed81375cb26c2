"""The Kubernetes API for the tests' own programs: plain requests as an administrator."""

import base64
import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import requests
import yaml

Object = dict[str, Any]

SERVING = "/apis/serving.kserve.io"


def service_path(namespace: str, name: str = "digits") -> str:
    """Return the path of an InferenceService."""
    return f"{SERVING}/v1beta1/namespaces/{namespace}/inferenceservices/{name}"


class Api:
    """One cluster, by the current context of a kubeconfig."""

    def __init__(self, kubeconfig: str | Path) -> None:
        document = yaml.safe_load(Path(kubeconfig).read_text())
        by_name = {kind: {it["name"]: it[kind[:-1]] for it in document[kind]} for kind in ("contexts", "clusters", "users")}
        context = by_name["contexts"][document["current-context"]]
        cluster, user = by_name["clusters"][context["cluster"]], by_name["users"][context["user"]]
        self.server = cluster["server"]
        self.ca = cluster["certificate-authority-data"]
        self._session = requests.Session()
        self._session.trust_env = False  # REQUESTS_CA_BUNDLE would win over the cluster's own
        self.verify = _file(self.ca)
        self._session.verify = self.verify
        if "token" in user:
            self._session.headers["authorization"] = f"Bearer {user['token']}"
        else:
            self._session.cert = (_file(user["client-certificate-data"]), _file(user["client-key-data"]))

    def ask(self, method: str, path: str, body: Any = None, *, content: str = "application/json", **query: str) -> Any:
        """Send a request; returns the answer's object, raises requests.HTTPError with its text."""
        url = f"{self.server}{path}{'?' + urlencode(query) if query else ''}"
        data = None if body is None else json.dumps(body)
        answer = self._session.request(method, url, data=data, headers={"content-type": content}, timeout=30)
        if not answer.ok:
            raise requests.HTTPError(f"{method} {path}: {answer.status_code} {answer.text[:1000]}", response=answer)
        return answer.json()

    def find(self, path: str) -> Object | None:
        """Get an object, or None."""
        try:
            return self.ask("GET", path)
        except requests.HTTPError as error:
            if error.response is not None and error.response.status_code == 404:
                return None
            raise

    def apply(self, path: str, body: Object, manager: str = "stand-in") -> Object:
        """Server-side apply, taking what others own."""
        return self.ask("PATCH", path, body, content="application/apply-patch+yaml", fieldManager=manager, force="true")

    def merge(self, path: str, body: Object) -> Object:
        """Merge patch."""
        return self.ask("PATCH", path, body, content="application/merge-patch+json")

    def watch(self, path: str) -> Iterator[Object]:
        """Yield every object of a collection, then each as it changes, without end."""
        while True:
            with contextlib.suppress(requests.RequestException, ValueError):
                listed = self.ask("GET", path)
                yield from ({**it, "event": "ADDED"} for it in listed["items"])
                url = f"{self.server}{path}?watch=1&resourceVersion={listed['metadata']['resourceVersion']}"
                with self._session.get(url, stream=True, timeout=(5, 300)) as stream:
                    for line in stream.iter_lines():
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            break
                        yield {**event["object"], "event": event["type"]}


def _file(data: str) -> str:
    with tempfile.NamedTemporaryFile("wb", delete=False, suffix=".pem") as file:
        file.write(base64.b64decode(data))
    return file.name
