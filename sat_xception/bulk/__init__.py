"""All tiles of an area: plan them, score them, prove that none is lost, publish what was found."""
