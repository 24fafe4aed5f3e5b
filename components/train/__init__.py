"""KFP component of the train step."""
