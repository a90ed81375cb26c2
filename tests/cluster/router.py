"""The way of users' requests: to a pod of the revision that the InferenceService's traffic gives it to, or to any pod that is ready."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

from tests.cluster.api import Api, Object, service_path
from tests.cluster.place import this_machine


@contextmanager
def router(api: Api, namespace: str, *, host: str = "", token: str = "") -> Iterator[str]:
    """Start an ingress for one namespace; yields its address. `host` and `token` are asked for where they are set."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if host and self.headers["host"] != host:
                return self._answer(404, b'{"error": "no such host"}')
            if token and self.headers.get("authorization") != f"Bearer {token}":
                return self._answer(401, b'{"error": "who are you?"}')
            pods = _chosen(api, namespace, self.path.split("/")[3])
            if not pods:
                return self._answer(503, b'{"error": "no pod"}')
            headers = {k: v for k, v in self.headers.items() if k.lower().startswith(("content-type", "inference-"))}
            address = random.choice(pods)["status"]["podIP"]
            answer = requests.post(f"http://{address}:8080{self.path}", data=body, headers=headers, timeout=10)
            return self._answer(answer.status_code, answer.content)

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("", 0), Handler)  # pods of a real node call it too
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    try:
        yield f"http://{this_machine(api)}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _chosen(api: Api, namespace: str, service: str) -> list[Object]:
    """The ready pods of the revision that this request goes to."""
    live = api.find(service_path(namespace, service)) or {}
    traffic: list[dict[str, Any]] = live.get("status", {}).get("components", {}).get("predictor", {}).get("traffic") or []
    label = f"serving.kserve.io/inferenceservice={service}"
    if traffic:
        (share,) = random.choices(traffic, [t["percent"] for t in traffic])
        label += f",serving.knative.dev/revision={share['revisionName']}"
    pods = api.ask("GET", f"/api/v1/namespaces/{namespace}/pods", labelSelector=label)["items"]
    return [p for p in pods if "deletionTimestamp" not in p["metadata"] and _ready(p)]


def _ready(pod: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions") or [])
