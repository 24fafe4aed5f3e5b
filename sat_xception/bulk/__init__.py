"""Bulk scoring of all tiles of an area: plan, score, and account for every tile."""
