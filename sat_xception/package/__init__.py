"""Export a trained model for TensorFlow Serving, and prove that it answers as Keras does."""
