"""Models: backbones, pixels to model input, training, export."""
