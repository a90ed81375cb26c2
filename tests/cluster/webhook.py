"""The stand-in's admission webhook: what KServe's refuses and the schema lets through."""

import base64
import json
import re
import ssl
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests.cluster.api import Api, Object

CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
LABEL = "tests.penstock/prefix"
"""On the namespaces that a stand-in is for."""
_MODE = "serving.kserve.io/deploymentMode"
_OPERATIONS, _RESOURCES = ["CREATE", "UPDATE"], ["inferenceservices"]
_SAME = {"RawDeployment": "Standard", "Serverless": "Knative"}


def problem(new: Object, old: Object | None) -> str:
    """Return why KServe refuses an InferenceService; empty when it does not."""
    predictor = new["spec"].get("predictor", {})
    mode, before = (_mode(it) for it in (new, old or new))
    percent = predictor.get("canaryTrafficPercent")
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", new["metadata"]["name"]):
        return "the InferenceService name is invalid"
    if ("model" in predictor) == bool(predictor.get("containers")):
        return "exactly one of model and containers"
    if predictor.get("maxReplicas") and predictor["maxReplicas"] < (predictor.get("minReplicas") or 0):
        return "MinReplicas cannot be greater than MaxReplicas"
    if percent is not None and not 0 <= percent <= 100:
        return "canaryTrafficPercent must be between 0 and 100"
    if any(e["name"] == "PYTHONPATH" for e in predictor.get("model", {}).get("env") or []):
        return "environment variable PYTHONPATH is not allowed"
    if mode == "Knative" and "deploymentStrategy" in predictor:
        return "customizing deploymentStrategy is only supported for Standard deployment mode"
    if mode != before:
        return f"update rejected: deploymentMode cannot be changed from '{before}' to '{mode}'"
    return ""


def _mode(it: Object) -> str:
    mode = (it["metadata"].get("annotations") or {}).get(_MODE, "Knative")
    return _SAME.get(mode, mode)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["content-length"])))
        request = review["request"]
        why = problem(request["object"], request.get("oldObject")) if request.get("object") else ""
        response = {"uid": request["uid"], "allowed": not why}
        if why:
            response["status"] = {"code": 403, "message": why}
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


def name_of(prefix: str) -> str:
    """Return the configuration's name for the namespaces with this prefix."""
    return f"{prefix}inferenceservice.stand-in.tests"


def serve_webhook(api: Api, prefix: str) -> None:
    """Listen where the API server can call, and register for the namespaces with this prefix."""
    host = urlsplit(api.server).hostname
    folder = Path(tempfile.mkdtemp())
    certificate, key = folder / "tls.crt", folder / "tls.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/CN=stand-in",
        "-addext",
        f"subjectAltName=IP:{host}",
    ]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    server = ThreadingHTTPServer((str(host), 0), _Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    webhook = {
        "name": name_of(prefix), "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore", "timeoutSeconds": 10,
        "clientConfig": {"url": f"https://{host}:{server.server_port}/", "caBundle": base64.b64encode(certificate.read_bytes()).decode()},
        "namespaceSelector": {"matchLabels": {LABEL: prefix.strip("-")}},
        "rules": [{"apiGroups": ["serving.kserve.io"], "apiVersions": ["v1beta1"], "resources": _RESOURCES, "operations": _OPERATIONS}],
    }  # fmt: skip
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name_of(prefix)},
        "webhooks": [webhook],
    }
    api.apply(f"{CONFIGURATIONS}/{name_of(prefix)}", configuration)
