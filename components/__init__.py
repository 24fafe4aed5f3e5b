"""Kubeflow components: one folder per step, each with the thin contract of one verb of the library."""
