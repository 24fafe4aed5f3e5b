"""Kubeflow components: one folder a step, each the thin contract of one verb of the library."""
