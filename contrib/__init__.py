"""The training loops that TensorFlow 2 removed with `tf.contrib`, under their old names."""
