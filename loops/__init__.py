"""The training loops: the step of each, and one way to run them all."""

from .verbosity import follow_tensorflow

# Here, since commands that ask a job should not wait for TensorFlow to load.
follow_tensorflow()
