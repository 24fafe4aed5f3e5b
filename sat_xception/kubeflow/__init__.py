"""Clients of Kubeflow Pipelines (submit, schedule, watch), and runs of its pipelines on this machine."""
