"""The training loops that TensorFlow 2 removed with `tf.contrib`, under their old names."""

from ..loops.verbosity import follow_tensorflow

follow_tensorflow()
