"""KFP component of the gate step."""
