"""Kubeflow pipelines made of the components, and the programs that compile and run them."""
