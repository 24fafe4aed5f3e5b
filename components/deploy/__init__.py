"""KFP component of the deploy step."""
