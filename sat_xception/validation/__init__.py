"""TensorFlow Data Validation of the examples: statistics, schema, drift and skew."""
