"""Export a trained model for TensorFlow Serving, and check that its outputs equal Keras's."""
