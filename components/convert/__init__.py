"""KFP component of the convert step."""
