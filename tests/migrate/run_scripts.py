"""Runs scripts one after the other, each as a main program on a fresh default graph.

Takes its own arguments as one JSON list of lists: a script and its arguments. One process for
several scripts saves as many starts of TensorFlow.
"""

import json
import os
import runpy
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

for command in json.loads(sys.argv[1]):
    sys.argv = command
    tf.compat.v1.reset_default_graph()
    try:
        runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
