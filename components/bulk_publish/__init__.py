"""KFP component of the package step."""
