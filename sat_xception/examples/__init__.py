"""Convert datasets to TFRecord shards of `tf.train.Example`."""
