"""What steps report to systems that users already have: OpenLineage, MLflow, the Kubeflow Model Registry, the Hugging Face Hub, and
registries of OCI images.

Each is an extra, off until its own environment variable names a server, and never the reason for which a step fails or waits long.
"""
