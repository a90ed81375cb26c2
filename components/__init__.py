"""The steps of Penstock's pipelines and the domain they share: one folder a step, `component.py` is what Kubeflow sees."""

import os

# onnxruntime 1.32 reports usage to its maker and keeps an identifier in the home folder, unless this is set before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
