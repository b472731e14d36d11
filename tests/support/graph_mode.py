"""A pytest plugin: `-p tests.support.graph_mode` runs tests in another graph mode of TensorFlow.

`GRAPH_MODE` has the names of functions in `tf.compat.v1` that set the mode, with commas between
them. A mode is that of a whole process.
"""

import os

import tensorflow as tf

for switch in os.environ["GRAPH_MODE"].split(","):
    getattr(tf.compat.v1, switch)()
