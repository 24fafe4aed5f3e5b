"""TFRecord shards of tf.train.Example: what convert writes."""
