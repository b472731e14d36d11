"""The worker's current activity and its duration, which the chief asks for when no step is made."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from ..protos import membership_pb2 as pb

Doing: TypeAlias = pb.WorkerReport.Doing


class Activity:
    """The worker's current activity.

    Example::

        activity = Activity()
        activity.note(pb.WorkerReport.STEP)
        activity.add_to(report)  # report.doing == STEP, report.doing_secs == 0.0...

    Args:
        clock: Seconds from any origin.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._doing: Doing = pb.WorkerReport.UNKNOWN
        self._since = clock()
        self._sessions = 0

    @property
    def sessions(self) -> int:
        """The number of the newest session, from 1; 0 before the first."""
        return self._sessions

    def note(self, doing: Doing) -> None:
        """Records what the worker does from now on."""
        with self._lock:
            self._doing, self._since = doing, self._clock()

    def open_session(self) -> None:
        """Says that the worker begins to open another session."""
        with self._lock:
            self._sessions += 1
            self._doing, self._since = pb.WorkerReport.OPENING, self._clock()

    def add_to(self, report: pb.WorkerReport) -> pb.WorkerReport:
        """Writes all of it into a report, and returns that."""
        with self._lock:
            report.doing = self._doing
            report.doing_secs = self._clock() - self._since
            report.sessions = self._sessions
        return report


class ActivityHook(tf.compat.v1.train.SessionRunHook):
    """Hook that records the worker's activity at its place among the other hooks.

    Args:
        activity: The record.
        before_step: Activity after the hooks before this one have done their part of a step; for
            the last hook the step itself.
        after_step: Activity after a step; None: unchanged.
    """

    def __init__(
        self, activity: Activity, before_step: Doing, after_step: Doing | None = None
    ) -> None:
        self._activity = activity
        self._before_step = before_step
        self._after_step = after_step

    def before_run(self, run_context: Any) -> None:
        """Records the next activity."""
        self._activity.note(self._before_step)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Records the next activity."""
        if self._after_step is not None:
            self._activity.note(self._after_step)
