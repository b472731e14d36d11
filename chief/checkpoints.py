"""The checkpoint service: saves beside training, on a timer, on request and at the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ..cluster.session import PREEMPTION_ERRORS
from ..errors import JobFailed, first_line
from ..loops.service_hooks import BASENAME
from ..model.graph import TrainGraph

log = logging.getLogger(__name__)

# How long a checkpoint waits for the step under way, so that it falls between two steps.
PAUSE_SECS = 5.0


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is whole.

    Attributes:
        path: Its prefix, as TensorFlow's readers take it.
        global_step: The step it was taken at.
        written: Unix time in seconds.
        seconds: How long it took to write.
    """

    path: str
    global_step: int
    written: float
    seconds: float


class CheckpointService:
    """Saves the model when it is due.

    TensorFlow writes the parts under temporary names and renames them, the index last, so a
    checkpoint that was cut off is never taken for a whole one.

    Args:
        built: The graph and its saver.
        session: The chief's session.
        logdir: Where checkpoints go.
        every_secs: Seconds between two checkpoints; None: none by time.
        every_steps: Global steps between two checkpoints; None: none by steps.
        global_step: Gives the newest known global step.
        paused: Makes a context in which no step is applied (sync mode).
        on_saved: Called with each new checkpoint.
    """

    def __init__(
        self,
        built: TrainGraph,
        session: Any,
        logdir: str,
        *,
        every_secs: float | None,
        every_steps: int | None,
        global_step: Callable[[], int],
        paused: Callable[[float], AbstractContextManager[Any]] = lambda _: nullcontext(),
        on_saved: Callable[[Checkpoint], None] = lambda _: None,
    ) -> None:
        self._built = built
        self._session = session
        self._prefix = tf.io.gfile.join(logdir, BASENAME)
        self._every_secs = every_secs
        self._every_steps = every_steps
        self._global_step = global_step
        self._paused = paused
        self._on_saved = on_saved
        self._saving = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._last: Checkpoint | None = None
        self._due_since = time.monotonic()
        self._step_at_due = global_step()

    def start(self) -> None:
        """Starts the timer thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the timer thread, after the checkpoint it may be writing."""
        self._ended.set()
        self._thread.join(timeout=60)

    @property
    def is_running(self) -> bool:
        """Whether the timer thread lives."""
        return self._thread.is_alive()

    def save(self, *, quiet: bool = False) -> Checkpoint:
        """Saves now; gives the newest checkpoint when it is of this step already.

        Args:
            quiet: No step is being applied: there is nothing to pause.

        Raises:
            JobFailed: It could not be written; training is not touched by that.
        """
        with self._saving:
            started = time.monotonic()
            try:
                with nullcontext() if quiet else self._paused(PAUSE_SECS):
                    step = int(self._session.run(self._built.global_step))
                    if self._last is not None and self._last.global_step == step:
                        return self._last
                    with self._built.graph.as_default():  # Else the saver would save eagerly.
                        path = self._built.saver.save(
                            self._session, self._prefix, global_step=step, write_meta_graph=False
                        )
            except PREEMPTION_ERRORS:
                raise  # A parameter server is gone: for whoever recovers from that.
            except (tf.errors.OpError, OSError, ValueError) as error:
                raise JobFailed(
                    f"the checkpoint at {self._prefix} was not written: {first_line(error)}"
                ) from error
            took = time.monotonic() - started
            self._last = Checkpoint(str(path), step, time.time(), took)
            self._due_since, self._step_at_due = time.monotonic(), step
        log.info("checkpoint %s in %.2f s", path, took)
        self._on_saved(self._last)
        return self._last

    def _run(self) -> None:
        while not self._ended.wait(0.1):
            if not self._is_due():
                continue
            try:
                self.save()
            except JobFailed as error:
                log.error("%s; the next try comes when the next one is due", error)
                self._due_since, self._step_at_due = time.monotonic(), self._global_step()
            except (tf.errors.OpError, RuntimeError) as error:
                log.warning("checkpoint given up, the session is gone: %s", type(error).__name__)
                return

    def _is_due(self) -> bool:
        step = self._global_step()
        if step <= self._step_at_due:
            return False
        if self._every_steps is not None and step - self._step_at_due >= self._every_steps:
            return True
        waited = time.monotonic() - self._due_since
        return self._every_secs is not None and waited >= self._every_secs
