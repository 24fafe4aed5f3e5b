"""Serving a packaged model, and asking one that is served."""
