"""Verbs that run several steps in one process, without Kubeflow: `dataset build` and the original's command."""
