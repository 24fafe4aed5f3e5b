"""Turn scores into candidates that people review: layers, maps, counts."""
