"""The base class of settings, the types of their fields, loading from YAML and flags."""
