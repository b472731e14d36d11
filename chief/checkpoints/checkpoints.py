"""The checkpoint service: saves beside training, on a schedule, on request and at the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tensorflow as tf

from ...cluster.deadline import Deadline, call_in_background, has_ended
from ...cluster.logdir.direct import DirectLogDirectory
from ...cluster.logdir.errors import LOGDIR_ERRORS, remedy_for
from ...cluster.logdir.interface import LogDirectory, open_logdir
from ...cluster.session import PREEMPTION_ERRORS
from ...errors import JobFailed
from ...loops.hooks import BASENAME
from ...model.graph import TrainGraph
from ...reasons import reason_of
from ...tf_internals import next_kept_checkpoint
from .files import (
    Checkpoint,
    drop,
    local_path,
    name_of,
    publish,
    remove_leftovers,
    step_of,
    write_sidecar,
)

# After a checkpoint that was not written: until the next try, twice as long after each one.
RETRY_SECS = 5.0
MAX_RETRY_SECS = 300.0
log = logging.getLogger(__name__)
# Seconds for which a checkpoint, or a move, waits for the step under way, to fall between two.
PAUSE_SECS = 5.0
# Seconds for which steps are held for a checkpoint. TensorFlow has read every value before it
# writes the first byte. A longer hold means a slow disk, which is no reason to stop training.
HOLD_SECS = 30.0


class SaveSchedule:
    """The schedule of a job's checkpoints.

    Args:
        global_step: Gives the newest known global step.
        every_secs: Seconds between two checkpoints; None: none by time.
        every_steps: Global steps between two checkpoints; None: none by steps.
        max_wait_secs: How long a save may take before it counts as failed.
        retry_secs: Seconds from the first failure to the next try.
        clock: Seconds from any origin.

    Attributes:
        max_wait_secs: As given.
    """

    def __init__(
        self,
        global_step: Callable[[], int],
        *,
        every_secs: float | None = None,
        every_steps: int | None = None,
        max_wait_secs: float = 600.0,
        retry_secs: float = RETRY_SECS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._global_step = global_step
        self._every_secs = every_secs
        self._every_steps = every_steps
        self.max_wait_secs = max_wait_secs
        self._retry_secs = retry_secs
        self._clock = clock
        self._failures = 0
        self._retry_at = 0.0
        self._saved_at = clock()
        self._saved_step = global_step()

    @property
    def is_due(self) -> bool:
        """True if a checkpoint is to be written now."""
        if self._every_secs is None and self._every_steps is None:
            return False
        if self._failures:
            return not self.retry_in_secs
        steps = self._global_step() - self._saved_step
        if steps <= 0:
            return False
        if self._every_steps is not None and steps >= self._every_steps:
            return True
        waited = self._clock() - self._saved_at
        return self._every_secs is not None and waited >= self._every_secs

    @property
    def retry_in_secs(self) -> float:
        """Seconds until the next try, after a failure."""
        return max(0.0, self._retry_at - self._clock())

    def note_saved(self, step: int) -> None:
        """Notes that a checkpoint of a global step was written."""
        self._failures = 0
        self._saved_at, self._saved_step = self._clock(), step

    def note_failure(self) -> None:
        """Notes that a checkpoint was not written."""
        secs = min(self._retry_secs * 2**self._failures, MAX_RETRY_SECS)
        self._failures += 1
        self._retry_at = self._clock() + secs


class CheckpointService:
    """Saves the model when it is due.

    TensorFlow writes the parts under temporary names and renames them, the index last. So an
    incomplete checkpoint is never taken for a whole one. A save that fails or hangs is reported and
    tried again; training continues meanwhile.

    Args:
        built: The graph and its saver.
        session: The chief's session.
        logdir: Place of the checkpoints: a path, a URL or an open log directory.
        schedule: The times of checkpoints, and the limit of their duration.
        paused: Makes a context in which no step is applied (sync mode).
        sidecar: Returns the state kept beside the model, for JSON. Called for each checkpoint,
            while no step is applied; None keeps nothing.
        on_saved: Called with each new checkpoint, by any thread.
        on_failed: Called with the error of each save that failed, by any thread.
    """

    def __init__(
        self,
        built: TrainGraph,
        session: Any,
        logdir: str | LogDirectory,
        schedule: SaveSchedule,
        *,
        paused: Callable[[float], AbstractContextManager[Any]] = lambda _: nullcontext(),
        sidecar: Callable[[], Mapping[str, Any]] | None = None,
        on_saved: Callable[[Checkpoint], None] = lambda _: None,
        on_failed: Callable[[JobFailed], None] = lambda _: None,
    ) -> None:
        self._built = built
        self._session = session
        self._storage = open_logdir(logdir)
        self._schedule = schedule
        self._paused = paused
        self._sidecar = sidecar
        self._on_saved = on_saved
        self._on_failed = on_failed
        self._saving = threading.Lock()
        self._abandoned: Future[Checkpoint] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._newest: Checkpoint | None = None

    def start(self, newest: Checkpoint | None = None) -> None:
        """Starts the timer thread.

        Args:
            newest: The newest whole checkpoint, if there is one.
        """
        self._newest = newest or self._newest
        self._thread.start()

    def stop(self, max_wait_secs: float = 60.0) -> None:
        """Ends the timer thread, after the checkpoint it may be writing.

        Args:
            max_wait_secs: How long to wait for that checkpoint; `save` waits for it as well.
        """
        self._ended.set()
        self._thread.join(max_wait_secs)

    @property
    def is_running(self) -> bool:
        """True if the timer thread lives."""
        return self._thread.is_alive()

    def save(self, *, quiet: bool = False, max_wait_secs: float | None = None) -> Checkpoint:
        """Saves now; gives the newest checkpoint when it is of this step already.

        Args:
            quiet: No step is being applied: there is nothing to pause.
            max_wait_secs: How long it may take; None: as long as any.

        Raises:
            JobFailed: It could not be written, or not in time; training is not touched by that.
        """
        limit = self._schedule.max_wait_secs if max_wait_secs is None else max_wait_secs
        deadline = Deadline.after(limit)
        if not self._saving.acquire(timeout=limit):
            raise self._failure(_too_slow(limit))
        try:
            return self._save(quiet, deadline)
        except (*PREEMPTION_ERRORS, tf.errors.CancelledError):
            raise  # A parameter server or the session is gone: the main loop recovers from that.
        except (*LOGDIR_ERRORS, ValueError, TypeError) as error:
            failure = self._failure(error)
            self._schedule.note_failure()
            self._on_failed(failure)
            raise failure from error
        finally:
            self._saving.release()

    def _save(self, quiet: bool, deadline: Deadline) -> Checkpoint:
        if self._abandoned is not None and not self._abandoned.done():
            raise TimeoutError("the former one has not ended yet")
        is_written = threading.Event()
        with nullcontext() if quiet else self._paused(PAUSE_SECS):
            call = call_in_background("checkpoint-writer", lambda: self._write(is_written))
            if not is_written.wait(min(HOLD_SECS, deadline.remaining_secs())):
                log.warning("a checkpoint takes long; training continues, if it was held for that")
        if not has_ended(call, deadline.remaining_secs()):
            self._abandoned = call
            raise _too_slow(deadline.max_wait_secs)
        return call.result()

    def _write(self, is_written: threading.Event) -> Checkpoint:
        started = time.monotonic()
        saver = self._built.saver
        before, next_for_good = set(saver.last_checkpoints), next_kept_checkpoint(saver)
        try:
            step = int(self._session.run(self._built.global_step))
            newest = self._newest
            if newest is not None and newest.global_step == step and self._is_here(step):
                return newest
            sidecar = self._sidecar() if self._sidecar is not None else None
            self._write_here(step, sidecar)
        finally:
            is_written.set()
        publish(self._storage, step)
        dropped = before - set(saver.last_checkpoints)
        if next_kept_checkpoint(saver) != next_for_good:
            dropped.clear()  # The model's saver keeps one permanently every few hours: this one.
        drop(self._storage, [step_of(path) for path in dropped if not self._is_here(step_of(path))])
        path = str(tf.io.gfile.join(self._storage.logdir, name_of(step)))
        return self._note(Checkpoint(path, step, time.time(), time.monotonic() - started, sidecar))

    def _write_here(self, step: int, sidecar: Mapping[str, Any] | None) -> None:
        """Writes a checkpoint where TensorFlow can."""
        directory = DirectLogDirectory(self._storage.directory)
        directory.prepare()
        if self._is_here(step):
            # Else a save that is cut off would leave the parts of two checkpoints under one name.
            tf.io.gfile.remove(f"{local_path(self._storage, step)}.index")
        try:
            if sidecar is not None:
                write_sidecar(directory, step, sidecar)  # First: an index marks a whole one.
            prefix = tf.io.gfile.join(directory.logdir, BASENAME)
            with self._built.graph.as_default():  # Else the saver would save eagerly.
                self._built.saver.save(
                    self._session, prefix, global_step=step, write_meta_graph=False
                )
        except Exception:
            remove_leftovers(directory)
            raise

    def _is_here(self, step: int) -> bool:
        return bool(tf.io.gfile.exists(f"{local_path(self._storage, step)}.index"))

    def _note(self, checkpoint: Checkpoint) -> Checkpoint:
        self._newest = checkpoint
        self._schedule.note_saved(checkpoint.global_step)
        log.info("checkpoint %s in %.2f s", checkpoint.path, checkpoint.seconds)
        self._on_saved(checkpoint)
        return checkpoint

    def _failure(self, error: Exception) -> JobFailed:
        prefix = tf.io.gfile.join(self._storage.logdir, BASENAME)
        newest = self._newest
        kept = f"the newest whole one is {newest.path}" if newest else "there is no whole one yet"
        return JobFailed(
            f"the checkpoint at {prefix} was not written: {reason_of(error)}{remedy_for(error)}; "
            f"{kept}"
        )

    def _run(self) -> None:
        while not self._ended.wait(0.1):
            if not self._schedule.is_due:
                continue
            try:
                self.save()
            except JobFailed as error:
                log.error("%s; the next try is in %g s", error, self._schedule.retry_in_secs)
            except (tf.errors.OpError, RuntimeError) as error:
                log.warning("checkpoint given up, the session is gone: %s", reason_of(error))
                return


def _too_slow(limit_secs: float) -> TimeoutError:
    return TimeoutError(f"it takes longer than {limit_secs:g} s")
