"""KFP component of the evaluate step."""
