"""What KubeRay's operator does with a RayJob, in a process of this machine: it runs the entrypoint as the head's container would."""

import os
import subprocess
from pathlib import Path
from typing import Any

Object = dict[str, Any]
ROOT = Path(__file__).parent.parent.parent
STEP = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "score-1", "namespace": "runs", "labels": {"pipeline/runid": "r"}},
    "spec": {
        "serviceAccountName": "steps",
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "imagePullSecrets": [{"name": "registry"}],
        "containers": [
            {"name": "wait", "image": "argoexec:1"},
            {
                "name": "main",
                "image": "registry.example/penstock-pipeline:1",
                "env": [
                    {"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "penstock-s3", "key": "AWS_ACCESS_KEY_ID"}}},
                    {
                        "name": "AWS_SECRET_ACCESS_KEY",
                        "valueFrom": {"secretKeyRef": {"name": "penstock-s3", "key": "AWS_SECRET_ACCESS_KEY"}},
                    },
                    {"name": "AWS_ENDPOINT_URL", "valueFrom": {"configMapKeyRef": {"name": "penstock-storage", "key": "AWS_ENDPOINT_URL"}}},
                    {"name": "PENSTOCK_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "ARGO_TEMPLATE", "value": "{}"},
                ],
                "volumeMounts": [{"name": "ca", "mountPath": "/etc/penstock/ca"}, {"name": "argo", "mountPath": "/var/run/argo"}],
            },
        ],
        "volumes": [
            {"name": "ca", "configMap": {"name": "penstock-ca", "optional": True}},
            {"name": "argo", "emptyDir": {}},
            {"name": "argo-token", "secret": {"secretName": "argo"}},
        ],
    },
}
"""A step's pod as Kubeflow makes it."""


def run_entrypoint(job: Object) -> tuple[Object, str]:
    """Run the entrypoint to its end with the variables of the head's container; returns the status and the log that follow."""
    spec = job["spec"]
    (head,) = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= {it["name"]: it["value"] for it in head["env"] if "value" in it}
    environment["PATH"] = f"{ROOT / '.venv' / 'bin'}:{environment['PATH']}"
    ran = subprocess.run(
        spec["entrypoint"], shell=True, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if ran.returncode == 0:
        return {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "message": "Job finished successfully."}, ran.stdout
    message = (
        f"Job entrypoint command failed with exit code {ran.returncode}, last available logs (truncated to 20,000 chars):\n{ran.stdout}"
    )
    return {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": message}, ran.stdout
