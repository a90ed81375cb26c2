"""What steps tell the systems that users have already: OpenLineage, MLflow, the Kubeflow Model Registry, and the Hugging Face Hub.

Each is an extra, off until its own environment variable names a server, and never the reason for which a step fails or waits long.
"""
