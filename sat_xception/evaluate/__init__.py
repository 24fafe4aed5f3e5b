"""Evaluate models: metrics with confidence intervals, calibration, the gate, reports."""
