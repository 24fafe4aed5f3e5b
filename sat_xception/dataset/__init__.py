"""Tiles with their labels, their splits and where each came from: what assemble writes."""
