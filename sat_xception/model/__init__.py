"""Backbones, preprocessing, model input, and the parts that training and search share."""
