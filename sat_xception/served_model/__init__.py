"""A packaged model as everyone reads it: the model root, its versions, golden tiles."""
