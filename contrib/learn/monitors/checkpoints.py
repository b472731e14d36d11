"""A monitor that saves checkpoints."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ..summary_writers import get_summary_writer
from .base import BaseMonitor

v1 = tf.compat.v1
_logger = logging.getLogger(__name__)


class CheckpointSaver(BaseMonitor):
    """Monitor that saves a checkpoint after the first step, then at intervals, and at the end.

    Args:
        checkpoint_dir: Directory of the checkpoints.
        save_secs: Seconds from one checkpoint to the next.
        save_steps: Steps from one checkpoint to the next.
        saver: A `tf.compat.v1.train.Saver`; else that of the scaffold, else the one in the graph's
            `SAVERS` collection, else a new one.
        checkpoint_basename: Name of the files, before "-" and the step.
        scaffold: A `tf.compat.v1.train.Scaffold`, see `saver`.
        clock: Returns the time in seconds.

    Raises:
        ValueError: Both or none of `save_secs` and `save_steps` are given.
    """

    def __init__(
        self,
        checkpoint_dir: str,
        save_secs: float | None = None,
        save_steps: int | None = None,
        saver: Any = None,
        checkpoint_basename: str = "model.ckpt",
        scaffold: Any = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        if (save_secs is None) == (save_steps is None):
            raise ValueError(
                f"save_secs={save_secs} and save_steps={save_steps}: exactly one of save_secs and "
                "save_steps must be given"
            )
        self._dir = checkpoint_dir
        self._path = os.path.join(checkpoint_dir, checkpoint_basename)
        self._save_secs = save_secs
        self._save_steps = save_steps
        self._saver = saver
        self._scaffold = scaffold
        self._clock = clock
        self._last_begun_step: int | None = None
        self._last_saved: tuple[int, float] | None = None

    def begin(self, max_steps: int | None = None) -> None:
        """Finds or makes the saver, and restarts the count."""
        super().begin(max_steps=max_steps)
        self._last_begun_step = None
        self._last_saved = None
        tf.io.gfile.makedirs(self._dir)
        if self._saver is None and self._scaffold is None:
            savers = v1.get_collection(v1.GraphKeys.SAVERS)
            self._saver = savers[0] if savers else v1.train.Saver(sharded=True)

    def step_begin(self, step: int) -> list[Any]:
        """Remembers the step."""
        super().step_begin(step)
        self._last_begun_step = step
        return []

    def post_step(self, step: int, session: Any) -> None:
        """Saves if it is time."""
        if self._is_due(step):
            self._save(step, session)

    def end(self, session: Any = None) -> None:
        """Saves if there were steps since the last checkpoint."""
        super().end(session=session)
        step = self._last_begun_step
        if session is None or step is None:
            return
        if self._last_saved is None or self._last_saved[0] != step:
            self._save(step, session)

    def _is_due(self, step: int) -> bool:
        if self._last_saved is None:
            return True
        last_step, last_time = self._last_saved
        if self._save_steps is not None:
            return step >= last_step + self._save_steps
        assert self._save_secs is not None
        return self._clock() >= last_time + self._save_secs

    def _save(self, step: int, session: Any) -> None:
        _logger.info("Saving checkpoint for step %d to %s.", step, self._path)
        saver = self._scaffold.saver if self._saver is None else self._saver
        path = saver.save(session, self._path, global_step=step)
        self._last_saved = step, self._clock()
        log = v1.SessionLog(status=v1.SessionLog.CHECKPOINT, checkpoint_path=path)
        get_summary_writer(self._dir).add_session_log(log, step)
