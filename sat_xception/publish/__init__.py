"""Publish scores: candidates for review, map layers and counts."""
