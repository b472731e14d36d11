"""Ops that run in some steps only."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def run_if(predicate: tf.Tensor, make_ops: Callable[[], tf.Operation]) -> tf.Operation:
    """Makes an op that runs what `make_ops` makes when `predicate` is true, else nothing.

    `tf.cond` cannot assign to reference variables under control flow v2. This makes the two dead
    ends and their merger in the graph itself, which works with both kinds of variables, in every
    graph mode, and across devices.

    Args:
      predicate: bool scalar.
      make_ops: Called once; returns the op to run.

    Returns:
      An op; what waits for it runs in either case.
    """
    skipped, taken = tf.raw_ops.Switch(data=predicate, pred=predicate)
    with tf.control_dependencies([tf.identity(taken)]):
        done = make_ops()
    with tf.control_dependencies([done]):
        after = tf.identity(taken)
    return tf.raw_ops.Merge(inputs=[tf.identity(skipped), after]).output.op
