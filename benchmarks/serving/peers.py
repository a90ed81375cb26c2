"""The servers that are compared: what to install, how to start them, where they take each row's request."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serving import payloads
from benchmarks.serving.payloads import Request

SERVERS = Path(__file__).parent / "servers"
ROWS = ("V1 JSON", "V2 binary", "base64 PNG")

# The same numerical libraries and HTTP server everywhere.
SHARED = ("numpy==2.4.6", "onnxruntime==1.32.0", "pillow==13.0.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0")


@dataclass(frozen=True)
class Peer:
    """One server. In `command`, {python}, {bin}, {port}, {model} and {work} are filled in."""

    name: str
    requirements: tuple[str, ...]
    """Empty: the environment that runs the benchmark."""
    command: tuple[str, ...]
    requests: dict[str, Request]
    ready: str = "/v2/health/ready"
    environment: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """Files that are written into {work} before the start."""


_V1 = Request("/v1/models/digits:predict", payloads.v1_json)
_V2_BINARY = Request("/v2/models/digits/infer", payloads.v2_binary, payloads.v2_binary_headers)
_V1_PNG = Request("/v1/models/digits:predict", payloads.v1_png)
_KSERVE = dict(zip(ROWS, (_V1, _V2_BINARY, _V1_PNG), strict=True))

PENSTOCK = Peer(
    name="Penstock",
    requirements=(),
    command=(sys.executable, "-m", "components.predictor", "--model_name", "digits", "--model_dir", "{model}", "--http_port", "{port}"),
    requests=_KSERVE,
    environment={"PENSTOCK_THREADS": "1"},
)

BARE = Peer(
    name="bare uvicorn + onnxruntime",
    requirements=(*SHARED, "orjson==3.13.0"),
    command=("{python}", str(SERVERS / "bare.py")),
    requests=_KSERVE,
)

KSERVE = Peer(
    name="KServe 0.21 model, sync predict",
    requirements=(*SHARED, "kserve==0.21.0"),
    command=("{python}", str(SERVERS / "kserve_stock.py")),
    requests=_KSERVE,
)

MLSERVER = Peer(
    name="MLServer 1.7",
    requirements=(*SHARED, "mlserver==1.7.1"),
    command=("{bin}/mlserver", "start", "{work}"),
    requests=dict(
        zip(
            ROWS,
            (
                Request("/v2/models/digits/infer", payloads.v2_json, note="V2 JSON: it has no V1"),
                Request("/v2/models/digits/infer", payloads.v2_json, note="V2 JSON: its REST has no binary tensors"),
                Request("/v2/models/digits/infer", payloads.v2_png, note="V2 JSON, BYTES in base64"),
            ),
            strict=True,
        )
    ),
    ready="/v2/models/digits/ready",
    files={
        "settings.json": json.dumps(
            {
                "host": "127.0.0.1",
                "http_port": "{port}",
                "grpc_port": "{port2}",
                "parallel_workers": 0,
                "debug": False,
                "metrics_endpoint": None,
            }
        ),
        "model-settings.json": json.dumps({"name": "digits", "implementation": "mlserver_model.Digits"}),
    },
)

BENTOML = Peer(
    name="BentoML 1.4",
    requirements=(*SHARED, "bentoml==1.4.40"),
    command=("{bin}/bentoml", "serve", "bentoml_service:Digits", "--host", "127.0.0.1", "--port", "{port}", "--working-dir", str(SERVERS)),
    requests=dict(
        zip(
            ROWS,
            (
                Request("/predict", payloads.v1_json, note="its own JSON"),
                Request("/raw", payloads.raw, payloads.raw_headers, note="the pixels as the body"),
                Request("/predict", payloads.v1_png, note="its own JSON"),
            ),
            strict=True,
        )
    ),
    ready="/readyz",
    environment={"BENTOML_DO_NOT_TRACK": "True"},
)

LITSERVE = Peer(
    name="LitServe 0.2",
    requirements=(*SHARED, "litserve==0.2.19"),
    command=("{python}", str(SERVERS / "litserve_server.py")),
    requests=dict(
        zip(
            ROWS,
            (
                Request("/predict", payloads.v1_json, note="its own JSON"),
                Request("/predict", payloads.raw_json, note="its own JSON, pixels in base64"),
                Request("/predict", payloads.v1_png, note="its own JSON"),
            ),
            strict=True,
        )
    ),
    ready="/health",
)

PEERS = (PENSTOCK, BARE, KSERVE, MLSERVER, BENTOML, LITSERVE)
