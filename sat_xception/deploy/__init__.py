"""Deploy a packaged model to a model root or to KServe, and verify that it answers."""
