"""The dataset: tiles with labels, splits and provenance, assembled from class folders or from labels and imagery."""
