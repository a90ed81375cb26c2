"""The evaluation for people: one HTML page, and the Markdown that Kubeflow shows."""
