"""Runs inside the predictor's image: serves, asks, checks a signature, then validates; prints which installed distributions it imported.

As JSON: those that only the step validate_serving imports, and those that nothing does. STEP in the environment has what the
step's command gives to its shell: the component's source and the executor's arguments.
"""

import importlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from importlib.metadata import Distribution, distributions
from pathlib import Path

import grpc
import numpy as np

from components.predictor.__main__ import main  # before what else imports kserve

# ruff: isort: split
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

HTTP, GRPC = 8080, 8081


def ask() -> None:
    """Wait until the model serves, ask by every protocol, then stop the server."""
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{HTTP}/v2/health/ready", timeout=5).read()
                break
            except OSError:
                time.sleep(0.1)
        golden = np.load("/mnt/models/golden.npz")
        image = golden[golden.files[0]][:1]
        post("/v1/models/digits:predict", {"instances": image.tolist()})
        tensor = {"name": "image", "shape": list(image.shape), "datatype": "UINT8", "data": image.ravel().tolist()}
        post("/v2/models/digits/infer", {"inputs": [tensor]})
        urllib.request.urlopen(f"http://127.0.0.1:{HTTP}/metrics", timeout=5).read()
        with grpc.insecure_channel(f"127.0.0.1:{GRPC}") as channel:
            stub = GRPCInferenceServiceStub(channel)
            stub.ModelReady(messages.ModelReadyRequest(name="digits"), timeout=10)
    finally:
        os.kill(os.getpid(), signal.SIGINT)


def post(path: str, document: object) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{HTTP}{path}", json.dumps(document).encode(), {"content-type": "application/json"})
    urllib.request.urlopen(request, timeout=10).read()


def unused() -> list[str]:
    """Names of the distributions of which no module is loaded."""
    loaded = {str(Path(module.__file__).resolve()) for module in list(sys.modules.values()) if getattr(module, "__file__", None)}

    def is_loaded(distribution: Distribution) -> bool:
        return any(str(Path(str(distribution.locate_file(file))).resolve()) in loaded for file in distribution.files or [])

    packages = [path for path in sys.path if path.startswith("/opt/penstock")]
    return sorted(it.name for it in distributions(path=packages) if not is_loaded(it))


def validate() -> None:
    """Run the step as its command does: kfp's executor on the component's own source."""
    source, *arguments = json.loads(os.environ["STEP"])
    path = Path(tempfile.mkdtemp(), "ephemeral_component.py")
    path.write_text(source, "utf-8")
    os.environ["_KFP_RUNTIME"] = "true"
    sys.argv = ["executor_main", "--component_module_path", str(path), *arguments]
    importlib.import_module("kfp.dsl.executor_main").executor_main()


def verify() -> None:
    """Sign, and check the signature, as where keys are configured."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    from components.registry.signing import require_signature, sign

    key, folder = ec.generate_private_key(ec.SECP256R1()), Path(tempfile.mkdtemp())
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    for name, content in (("PENSTOCK_SIGNING_KEY", private), ("PENSTOCK_VERIFY_KEY", public)):
        os.environ[name] = str(folder / name)
        (folder / name).write_bytes(content)
    require_signature(b"signed", sign(b"signed"), "a test")
    for name in ("PENSTOCK_SIGNING_KEY", "PENSTOCK_VERIFY_KEY"):
        del os.environ[name]


if __name__ == "__main__":
    threading.Thread(target=ask, daemon=True).start()
    code = main(["--model_name", "digits", "--enable_grpc", "true", "--enable_docs_url", "true"])
    import components.review.queue
    import components.storage.s3  # noqa: F401 - the review queue's, when it is set

    verify()
    while_serving = unused()
    validate()
    print(json.dumps({"code": code, "only_validating": sorted({*while_serving} - {*unused()}), "unused": unused()}))
