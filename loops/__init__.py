"""The training loops: what each does in a step, and one way to run them all."""

from .verbosity import follow_tensorflow

# Here, since commands that ask a job should not wait for TensorFlow to load.
follow_tensorflow()
