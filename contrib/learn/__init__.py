"""`tf.contrib.learn`'s functions on graphs, and its monitors, on today's TensorFlow."""

from . import graph_actions, monitors
from .evaluation import evaluate
from .feeds import infer, run_feeds, run_feeds_iter, run_n
from .monitors import NanLossDuringTrainingError
from .summary_writers import clear_summary_writers, get_summary_writer
from .training import train

__all__ = [
    "NanLossDuringTrainingError",
    "clear_summary_writers",
    "evaluate",
    "get_summary_writer",
    "graph_actions",
    "infer",
    "monitors",
    "run_feeds",
    "run_feeds_iter",
    "run_n",
    "train",
]
