"""The node's part where a cluster has none: `python -m tests.cluster.kubelet KUBECONFIG PREFIX NUMBER`.

Takes every pod of the namespaces with the prefix, fetches the model as the storage initializer does, runs the containers as processes
of this machine, probes them and writes their status. A predictor with the image's own command is answered for by a small server in this
process, on the same files with the same inference code; other commands are run as they are. Pods get addresses of the loopback network,
so that they can be called: NUMBER, which no other stand-in on this machine has, is part of them.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
import urllib.error
import urllib.request
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import numpy as np
import requests
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from components.bundle.model import Classifier
from tests.cluster.api import Api, Object

_numbers = itertools.count(2)
_BACKOFF_AFTER = 2
FIRST_NETWORK = 9


class Pod:
    """One pod, in a thread of its own until it is deleted."""

    def __init__(self, api: Api, pod: Object, network: int) -> None:
        self._api, self._pod, self._spec = api, pod, pod["spec"]
        metadata = pod["metadata"]
        self._path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        number = next(_numbers)
        self.address = f"127.{network}.{number // 250}.{number % 250 + 1}"
        self._models = Path(tempfile.mkdtemp(prefix="pod-"))
        self.gone = threading.Event()

    def run(self) -> None:
        """Bring the pod up and keep its status true."""
        try:
            if self._unschedulable():
                return
            self._conditions = [{"type": "PodScheduled", "status": "True"}]
            if self._initialize():
                self._serve()
        except requests.RequestException as error:
            if not self.gone.is_set() and "404" not in str(error):
                traceback.print_exc()

    def _unschedulable(self) -> bool:
        limits = [c.get("resources", {}).get("limits", {}) for c in self._spec["containers"]]
        wanted = [name for limit in limits for name in limit if "/" in name]
        if wanted:
            message = f"0/1 nodes are available: 1 Insufficient {wanted[0]}. preemption: 0/1 nodes are available"
            self._status("Pending", [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}], [], [])
        return bool(wanted)

    def _status(self, phase: str, conditions: list[Object], init: list[Object], main: list[Object]) -> None:
        if self.gone.is_set():
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        conditions = [{"lastTransitionTime": now, **c} for c in conditions]
        status = {
            "phase": phase, "conditions": conditions, "podIP": self.address, "podIPs": [{"ip": self.address}],
            "initContainerStatuses": init, "containerStatuses": main,
        }  # fmt: skip
        self._api.merge(f"{self._path}/status", {"status": status})

    def _tell(self, init: Object, main: Object, *, ready: bool = False) -> None:
        word = "True" if ready else "False"
        conditions = [*self._conditions, *({"type": kind, "status": word} for kind in ("Ready", "ContainersReady"))]
        self._status("Running" if main["state"].get("running") else "Pending", conditions, [init] if init else [], [main])

    def _initialize(self) -> bool:
        self._init = self._container("storage-initializer", {"running": {}})
        waiting = self._container("kserve-container", {"waiting": {"reason": "PodInitializing"}})
        self._tell(self._init, waiting)
        (initializer,) = self._spec["initContainers"]
        try:
            _download(initializer["args"][0], self._models, self._environment(initializer))
        except (BotoCoreError, ClientError, FileNotFoundError) as error:
            ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": f"RuntimeError: Failed to fetch model. {error}"}}
            self._tell(self._container("storage-initializer", ended), waiting)
            self.gone.wait(1)
            again = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
            self._tell(self._container("storage-initializer", again, ended, 1), waiting)
            return False
        self._init = self._container("storage-initializer", {"terminated": {"exitCode": 0, "reason": "Completed"}}, ready=True)
        return True

    def _environment(self, container: Object) -> dict[str, str]:
        found = {}
        for entry in container.get("env", []):
            reference = entry.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                import base64

                secret = self._api.find(f"/api/v1/namespaces/{self._pod['metadata']['namespace']}/secrets/{reference['name']}") or {}
                found[entry["name"]] = base64.b64decode(secret["data"][reference["key"]]).decode()
            else:
                found[entry["name"]] = entry.get("value", "")
        return found

    @staticmethod
    def _container(name: str, state: Object, last: Object | None = None, restarts: int = 0, *, ready: bool = False) -> Object:
        return {
            "name": name, "image": "x", "imageID": "x", "state": state, "lastState": last or {}, "restartCount": restarts, "ready": ready,
            "started": "running" in state,
        }  # fmt: skip

    def _serve(self) -> None:
        container = next(c for c in self._spec["containers"] if c["name"] == "kserve-container")
        if "no-such" in container["image"]:
            message = f'failed to pull image "{container["image"]}": not found'
            for reason in ("ErrImagePull", "ImagePullBackOff"):
                self._tell(self._init, self._container("kserve-container", {"waiting": {"reason": reason, "message": message}}))
                self.gone.wait(1.5)
            return
        last: Object | None = None
        for restarts in itertools.count():
            ended = self._run_once(container, last, restarts)
            if self.gone.is_set():
                return
            last = {"terminated": {"exitCode": ended[0], "reason": "Error", "message": ended[1]}}
            self._tell(self._init, self._container("kserve-container", last, last, restarts))
            if restarts + 1 >= _BACKOFF_AFTER:
                waiting = {
                    "waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container=kserve-container"}
                }
                self._tell(self._init, self._container("kserve-container", waiting, last, restarts + 1))
                self.gone.wait(10)

    def _run_once(self, container: Object, last: Object | None, restarts: int) -> tuple[int, str]:
        """Run the container until it ends or the pod goes; returns exit code and last output."""
        with _running(container, self._environment(container), self._models, self.address) as running:
            ready = None
            while not self.gone.is_set():
                if (code := running.poll()) is not None:
                    return code, running.output()
                if (now := _probe(container, self.address)) != ready:
                    ready = now
                    self._tell(self._init, self._container("kserve-container", {"running": {}}, last, restarts, ready=now), ready=now)
                self.gone.wait(0.3)
        return 0, ""


class _Process:
    """A container whose command is run as it is."""

    def __init__(self, container: Object, environment: dict[str, str], models: Path, address: str) -> None:
        command = [part.replace("/mnt/models", str(models)) for part in [*container["command"], *container.get("args", [])]]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._log = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115 - as long as the container
        self._process = subprocess.Popen(
            command, env={**os.environ, **environment, "PATH": path, "PENSTOCK_HOST": address, "MODELS": str(models)},
            stdout=self._log, stderr=self._log, start_new_session=True,
        )  # fmt: skip

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()

    def poll(self) -> int | None:
        return self._process.poll()

    def output(self) -> str:
        return Path(self._log.name).read_text()[-2000:]


class _Server:
    """A container of the predictor's own command: answers golden requests from the model's files."""

    def __init__(self, models: Path, address: str) -> None:
        self._error = ""
        try:
            classifier, version = Classifier(models, threads=1), json.loads((models / "manifest.json").read_bytes())["version"]
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the files, the container ends
            self._error = f'{{"event": "failed", "error": "{error}"}}'
            return
        handler = type("Handler", (_Handler,), {"classifier": classifier, "version": version})
        self._server = ThreadingHTTPServer((address, 8080), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def __enter__(self) -> "_Server":
        return self

    def __exit__(self, *_: object) -> None:
        if not self._error:
            self._server.shutdown()
            self._server.server_close()

    def poll(self) -> int | None:
        return 1 if self._error else None

    def output(self) -> str:
        return self._error


def _running(container: Object, environment: dict[str, str], models: Path, address: str) -> Any:
    return _Process(container, environment, models, address) if container.get("command") else _Server(models, address)


class _Handler(BaseHTTPRequestHandler):
    classifier: Classifier
    version: str
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(200 if self.path.startswith("/v2/health/") else 404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        head = int(self.headers["inference-header-content-length"])
        tensor = json.loads(body[:head])["inputs"][0]
        images = np.frombuffer(body[head:], np.uint8).reshape(tensor["shape"])
        rows = self.classifier.probabilities(images)
        output = {"name": "probabilities", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
        self._answer(200, {"model_name": self.path.split("/")[3], "model_version": self.version, "outputs": [output]})

    def _answer(self, status: int, document: Object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


def _probe(container: Object, address: str) -> bool:
    probe = container.get("readinessProbe", {}).get("httpGet", {"path": "/v2/health/ready"})
    try:
        with urllib.request.urlopen(f"http://{address}:8080{probe['path']}", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _download(uri: str, folder: Path, environment: dict[str, str]) -> None:
    """Fetch all whose key begins with the address, as KServe does: by prefix."""
    place = urlsplit(uri)
    client = boto3.client(
        "s3",
        endpoint_url=environment.get("AWS_ENDPOINT_URL"),
        aws_access_key_id=environment.get("AWS_ACCESS_KEY_ID", "nobody"),
        aws_secret_access_key=environment.get("AWS_SECRET_ACCESS_KEY", "nothing"),
        region_name=environment.get("AWS_DEFAULT_REGION", "us-east-1"),
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 2}, connect_timeout=2, read_timeout=5),
    )
    prefix = place.path.lstrip("/")
    found = client.list_objects_v2(Bucket=place.netloc, Prefix=prefix).get("Contents", [])
    if not found:
        raise FileNotFoundError(f"no model found in {uri}")
    for entry in found:
        target = folder / entry["Key"][len(prefix) :].lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(place.netloc, entry["Key"], str(target))


def main(api: Api, prefix: str, number: int) -> None:
    """Watch pods, and run each that is new."""
    pods: dict[str, Pod] = {}
    for it in api.watch("/api/v1/pods"):
        uid = it["metadata"]["uid"]
        if not it["metadata"]["namespace"].startswith(prefix):
            continue
        if it["event"] == "DELETED" or "deletionTimestamp" in it["metadata"]:
            if uid in pods:
                pods.pop(uid).gone.set()
        elif uid not in pods and not it["spec"].get("nodeName") and it["spec"].get("initContainers"):
            pods[uid] = Pod(api, it, FIRST_NETWORK + number)
            threading.Thread(target=pods[uid].run, daemon=True).start()


if __name__ == "__main__":
    print("ready", flush=True)
    main(Api(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
