"""Waiting for the checkpoints that training writes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import tensorflow as tf

from ...cluster.deadline import Deadline

_logger = logging.getLogger(__name__)


def wait_for_new_checkpoint(
    checkpoint_dir: str,
    last_checkpoint: str | None = None,
    seconds_to_sleep: float = 1,
    timeout: float | None = None,
) -> str | None:
    """Waits until there is a checkpoint that is not `last_checkpoint`.

    Args:
        checkpoint_dir: The directory, which need not exist yet.
        last_checkpoint: The path of the checkpoint that is known already; None knows none.
        seconds_to_sleep: Seconds between two checks.
        timeout: Seconds to wait; 0 looks once, None waits without limit.

    Returns:
        The newest checkpoint's path without suffix, or None if time ran out.
    """
    _logger.info("Waiting for a new checkpoint in %s.", checkpoint_dir)
    deadline = Deadline.after(timeout)
    while True:
        # Before the look, so that there is one at the very end of the wait.
        is_last_look = deadline.remaining_secs() == 0
        checkpoint: str | None = tf.train.latest_checkpoint(checkpoint_dir)
        if checkpoint is not None and checkpoint != last_checkpoint:
            _logger.info("Found a new checkpoint: %s.", checkpoint)
            return checkpoint
        if is_last_look:
            return None
        deadline.sleep(seconds_to_sleep)


def checkpoints_iterator(
    checkpoint_dir: str,
    min_interval_secs: float = 0,
    timeout: float | None = None,
    timeout_fn: Callable[[], bool] | None = None,
) -> Iterator[str]:
    """Yields each new checkpoint, the newest when several were written meanwhile.

    Args:
        checkpoint_dir: The directory, which need not exist yet.
        min_interval_secs: Seconds at least from one checkpoint's turn to that of the next.
        timeout: Seconds to wait for a checkpoint; None waits without limit.
        timeout_fn: Called when time ran out; iteration continues while it returns False. None ends
            it.

    Yields:
        A checkpoint's path without suffix.
    """
    checkpoint: str | None = None
    while True:
        newer = wait_for_new_checkpoint(checkpoint_dir, checkpoint, timeout=timeout)
        if newer is None:
            if timeout_fn is None or timeout_fn():
                _logger.info("No new checkpoint came within %s s.", timeout)
                return
            continue
        began = time.monotonic()
        checkpoint = newer
        yield checkpoint
        time.sleep(max(0.0, began + min_interval_secs - time.monotonic()))
