"""Tiles from class folders to validated TFRecords."""
