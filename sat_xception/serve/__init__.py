"""Serve a packaged model, and clients of a served model."""
