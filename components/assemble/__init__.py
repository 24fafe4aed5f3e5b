"""KFP component of the assemble step."""
