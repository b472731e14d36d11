"""The training loop: one for `contrib.training.train` and for the service's worker."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def run_until_stop(
    session: tf.compat.v1.train.MonitoredSession, train_op: Any, run_metadata: Any = None
) -> Any:
    """Runs steps until a hook stops the session or the input ends.

    Args:
        session: The session; its hooks decide when to stop.
        train_op: What to fetch in each step, any structure that `session.run` takes.
        run_metadata: A `tf.compat.v1.RunMetadata` that each step fills, or None.

    Returns:
        The last step's value of `train_op`; None if no step ended.
    """
    value = None
    try:
        while not session.should_stop():
            value = session.run(train_op, run_metadata=run_metadata)
    except (tf.errors.OutOfRangeError, StopIteration):
        # The end of the input, which is a normal end; the caller needs the value all the same.
        pass
    return value
