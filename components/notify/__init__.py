"""KFP component of the notify step."""
