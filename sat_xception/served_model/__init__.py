"""Packaged models: the model root, its versions, `model.json`, golden tiles."""
