"""The report of names without a new place, with remedies for the script's author."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .names import place

_LEGACY_LAYERS = (
    "needs Keras 2: `pip install tf_keras` and set TF_USE_LEGACY_KERAS=1, or build it from "
    "tf.get_variable and tf.nn"
)
_LAYERS = (
    "has no successor: use tf.layers (Keras 2: `pip install tf_keras` and set "
    "TF_USE_LEGACY_KERAS=1), or tf.get_variable and tf.nn"
)
_ESTIMATOR = (
    "has no successor: build the graph in a function and train it with "
    "paramserve.contrib.training.train"
)
_DATA = "has no successor: read the data with tf.data or paramserve.train's queues"

# What to do about a name, by the longest prefix that is listed.
_REMEDIES = {
    "tf.layers": _LEGACY_LAYERS,
    "tf.nn.rnn_cell": _LEGACY_LAYERS,
    "tf.contrib": "has no successor in paramserve or TensorFlow 2",
    "tf.contrib.layers": _LAYERS,
    "tf.contrib.layers.xavier_initializer": "use tf.glorot_uniform_initializer()",
    "tf.contrib.layers.xavier_initializer_conv2d": "use tf.glorot_uniform_initializer()",
    "tf.contrib.layers.variance_scaling_initializer": "use "
    "tf.variance_scaling_initializer(scale=2)",
    "tf.contrib.layers.l2_regularizer": "use lambda w: scale * tf.nn.l2_loss(w)",
    "tf.contrib.layers.optimize_loss": "use paramserve.contrib.training.create_train_op",
    "tf.contrib.rnn": "use tf.nn.rnn_cell (Keras 2: `pip install tf_keras` and set "
    "TF_USE_LEGACY_KERAS=1)",
    "tf.contrib.slim": _LAYERS,
    "tf.contrib.slim.losses": "use tf.losses",
    "tf.contrib.slim.metrics": "use tf.metrics",
    "tf.contrib.slim.evaluation": "use paramserve.contrib.training.evaluate_once or "
    "evaluate_repeatedly",
    "tf.contrib.slim.queues": "use paramserve.train.start_queue_runners",
    "tf.contrib.slim.dataset": _DATA,
    "tf.contrib.slim.tfexample_decoder": "use tf.io.parse_single_example",
    "tf.contrib.losses": "use tf.losses",
    "tf.contrib.metrics": "use tf.metrics",
    "tf.contrib.data": "use tf.data",
    "tf.contrib.lookup": "use tf.lookup",
    "tf.contrib.learn": _ESTIMATOR,
    "tf.contrib.learn.datasets": _DATA,
    "tf.contrib.framework.init_from_checkpoint": "use paramserve.train.init_from_checkpoint "
    "(its first argument is ckpt_dir_or_file)",
    "tf.contrib.framework.list_variables": "use paramserve.train.list_variables (its argument is "
    "ckpt_dir_or_file)",
    "tf.contrib.framework.load_checkpoint": "use paramserve.train.load_checkpoint (its argument "
    "is ckpt_dir_or_file)",
    "tf.contrib.framework.load_variable": "use paramserve.train.load_variable (its first argument "
    "is ckpt_dir_or_file)",
    "tf.contrib.framework.get_variables": "use tf.get_collection(tf.GraphKeys.GLOBAL_VARIABLES, "
    "scope)",
    "tf.contrib.framework.nest": "use tf.nest",
    "tf.estimator": _ESTIMATOR,
    "tf.estimator.ModeKeys": "is gone: its values were 'train', 'eval' and 'infer'",
    "tf.examples": _DATA,
    # Names that were gone before TensorFlow 1.0.
    "tf.mul": "use tf.multiply",
    "tf.sub": "use tf.subtract",
    "tf.neg": "use tf.negative",
    "tf.pack": "use tf.stack",
    "tf.unpack": "use tf.unstack",
    "tf.scalar_summary": "use tf.summary.scalar(name, tensor)",
    "tf.histogram_summary": "use tf.summary.histogram(name, tensor)",
    "tf.merge_all_summaries": "use tf.summary.merge_all",
    "tf.train.SummaryWriter": "use tf.summary.FileWriter",
}


class Finding(NamedTuple):
    """One name that was left as it was."""

    line: int
    """Counted from 1, as is `column`."""
    column: int
    name: str
    """As its documentation called it: "tf.contrib.slim.conv2d", however the script wrote it."""
    remedy: str


def remedy(name: str) -> str:
    """Returns the remedy for a canonical name that has no place."""
    if ".python." in name:
        return _private_remedy(name)
    parts = name.split(".")
    known = (_REMEDIES.get(".".join(parts[:length])) for length in range(len(parts), 0, -1))
    return next((each for each in known if each), "is not in TensorFlow 2's tf.compat.v1")


def _private_remedy(name: str) -> str:
    last = name.rpartition(".")[2]
    public = place(f"tf.train.{last}")
    if public is not None and not public[1]:
        return f"is private to TensorFlow: use {public[0].path}"
    return "is private to TensorFlow: use the public name"


def format_findings(path: str, findings: Iterable[Finding]) -> list[str]:
    """Formats a line for each name: FILE:LINE:COLUMN, name, remedy, and other places."""
    by_name: dict[tuple[str, str], list[Finding]] = {}
    for finding in sorted(findings):
        by_name.setdefault((finding.name, finding.remedy), []).append(finding)
    lines = []
    for (name, advice), (first, *others) in by_name.items():
        also = ", ".join(f"{each.line}:{each.column}" for each in others)
        position = f"{path}:{first.line}:{first.column}"
        lines.append(f"{position}: {name}: {advice}{f' (also {also})' if also else ''}")
    return lines
