"""What talks to Kubeflow, or knows that it runs there."""
