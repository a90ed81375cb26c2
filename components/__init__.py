"""The steps of Penstock's pipelines and the domain they share: one folder a step, `component.py` is what Kubeflow sees."""
