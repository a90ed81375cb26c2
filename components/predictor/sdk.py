"""KServe's SDK without the heavy imports that are not needed here; the only module that imports kserve.

`kserve/__init__.py` imports a Kubernetes client and its 700 models, and `kserve.protocol.infer_type` imports pandas for one
method. Both are put off here until an attribute of them is needed: with kserve 0.21, memory falls from 191 MB to 79 and the
import takes half the time.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


def _put_off(name: str, **placeholders: Any) -> None:
    """Register a module that runs its code only when an attribute is missing; `placeholders` are set before.

    Where the module is not installed, as in the predictor's image, it has only the placeholders.
    """
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__dict__.update(placeholders)
        return
    module, loader = importlib.util.module_from_spec(spec), spec.loader

    def load(attribute: str) -> Any:
        if attribute.startswith("__"):  # asked by machinery such as inspect, which does without
            raise AttributeError(attribute)
        if importlib.util.find_spec(f"{name}.{attribute}") is not None:
            return importlib.import_module(f"{name}.{attribute}")
        module.__dict__.pop("__getattr__", None)
        loader.exec_module(module)
        return getattr(module, attribute)

    module.__dict__.update(placeholders, __getattr__=load)
    sys.modules[name] = module


_put_off("kserve")
_put_off("pandas", DataFrame=object)  # stands in annotations

# ruff: noqa: E402 - only now
from kserve.model_server import ModelServer, app, parser
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceServicer, add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.infer_type import InferOutput, InferRequest, InferResponse, to_http_parameters
from kserve.protocol.rest.server import RESTServer, metrics_handler

__all__ = [
    "GRPCInferenceServiceServicer",
    "InferOutput",
    "InferRequest",
    "InferResponse",
    "ModelServer",
    "RESTServer",
    "add_GRPCInferenceServiceServicer_to_server",
    "app",
    "messages",
    "metrics_handler",
    "parser",
    "to_http_parameters",
]
