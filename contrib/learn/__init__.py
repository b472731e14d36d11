"""`tf.contrib.learn`'s functions on graphs, and its monitors, on today's TensorFlow."""

from . import graph_actions, monitors
from .evaluation import evaluate
from .feeds import infer, run_feeds, run_n
from .monitors import NanLossDuringTrainingError
from .training import train

__all__ = [
    "NanLossDuringTrainingError",
    "evaluate",
    "graph_actions",
    "infer",
    "monitors",
    "run_feeds",
    "run_n",
    "train",
]
