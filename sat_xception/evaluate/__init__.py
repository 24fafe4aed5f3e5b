"""Whether a model is good: metrics, the gate, the report."""
