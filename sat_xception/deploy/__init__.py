"""Putting a packaged model where it answers."""
