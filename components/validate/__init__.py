"""KFP component of the validate step."""
