"""The steps of `contrib.learn.train`, with their monitors."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ..cluster.session import PREEMPTION_ERRORS
from ..reasons import describe, reason_of
from .fetches import output_key, resolve
from .loop import Step

_logger = logging.getLogger(__name__)
v1 = tf.compat.v1
END_OF_INPUT = (tf.errors.OutOfRangeError, StopIteration)


class Monitors:
    """Monitors that are called in their order.

    Args:
        monitors: Objects with the methods of `paramserve.contrib.learn.monitors.BaseMonitor`.
    """

    def __init__(self, monitors: Iterable[Any]) -> None:
        self._monitors = list(monitors)
        self._begun: list[Any] = []

    def begin(self, max_steps: int | None) -> None:
        """Begins each monitor; if one fails, ends those that have begun."""
        try:
            for monitor in self._monitors:
                monitor.begin(max_steps=max_steps)
                self._begun.append(monitor)
        except BaseException:
            self.abandon()
            raise

    def step_begin(self, graph: tf.Graph, step: int) -> dict[Hashable, Any]:
        """Begins a step with each monitor.

        Returns:
            The fetches of the step, by the keys of the outputs.

        Raises:
            ValueError: A monitor requests something else than a list, or something that does not
                exist.
        """
        return {
            output_key(request): resolve(graph, request)
            for monitor in self._monitors
            for request in _checked(monitor, monitor.step_begin(step))
        }

    def step_end(self, step: int, outputs: Mapping[Any, Any]) -> bool:
        """Passes the outputs to each monitor; returns whether any of them asks to stop."""
        answers = [monitor.step_end(step, outputs) for monitor in self._monitors]
        return any(answers)

    def post_step(self, step: int, session: tf.compat.v1.Session) -> None:
        """Calls each monitor after a step."""
        for monitor in self._monitors:
            monitor.post_step(step, session)

    def end(self, session: tf.compat.v1.Session | None) -> None:
        """Ends each monitor that began, also if another one fails.

        Raises:
            Exception: The error of the first monitor that failed, other than the end of an input.
        """
        errors: list[Exception] = []
        while self._begun:
            try:
                _end(self._begun.pop(0), session)
            except tf.errors.OutOfRangeError as error:
                _logger.warning("A monitor met the end of the input: %s", reason_of(error))
            except Exception as error:
                errors.append(error)
        for later in errors[1:]:
            _logger.error("A second monitor could not end: %s", describe(later))
        if errors:
            raise errors[0]

    def abandon(self, session: tf.compat.v1.Session | None = None) -> None:
        """Ends each monitor that began, after an error; further errors are only logged."""
        try:
            self.end(session)
        except Exception as error:
            _logger.error("A monitor could not end: %s", describe(error))


def _checked(monitor: Any, requests: Any) -> list[Any]:
    if not requests:
        return []
    if not isinstance(requests, list):
        raise ValueError(
            f"{type(monitor).__name__}.step_begin should return a list of tensors to evaluate, not "
            f"{requests!r}"
        )
    return requests


def _end(monitor: Any, session: tf.compat.v1.Session | None) -> None:
    # Monitors of old programs need not take a session.
    parameters = inspect.signature(monitor.end).parameters.values()
    if any(each.name == "session" or each.kind is each.VAR_KEYWORD for each in parameters):
        monitor.end(session=session)
    else:
        monitor.end()


@dataclass(frozen=True, kw_only=True)
class LearnFetches:
    """The fetches of every step.

    Attributes:
        train_op: Makes the step; any structure that `session.run` takes.
        loss: Scalar floating-point tensor.
        step_after: Integer scalar tensor: the global step once `train_op` is done.
        train_op_key: Under which key monitors find the value of `train_op`; None: under none.
        loss_keys: Under which keys they find the loss.
    """

    train_op: Any
    loss: Any
    step_after: Any
    train_op_key: Any
    loss_keys: Collection[Any]


class LearnSteps(tf.compat.v1.train.SessionRunHook):
    """Step function with monitors around each step; as a hook it follows new and closed sessions.

    Args:
        fetches: The fetches of every step.
        global_step: The global step's variable.
        limit: Global step at which training ends; None: never.
        monitors: Called around each step.
        feed_fn: Called for each step; returns its feeds. None feeds nothing.
        log_every_steps: Global steps between two lines in the log.
        fail_on_nan_loss: True if a NaN loss is an error.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        fetches: LearnFetches,
        *,
        global_step: Any,
        limit: int | None,
        monitors: Monitors,
        feed_fn: Callable[[], Mapping[Any, Any]] | None,
        log_every_steps: int,
        fail_on_nan_loss: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.monitors = monitors
        self._fetches = fetches
        self._global_step = global_step
        self._limit = limit
        self._feed_fn = feed_fn
        self._log_every_steps = log_every_steps
        self._fail_on_nan_loss = fail_on_nan_loss
        self._clock = clock
        self._feeds: list[Any] = []
        self._last_step: int | None = None
        self._last_logged = 0

    def begin(self) -> None:
        """Begins the monitors, which may still add to the graph."""
        self.monitors.begin(self._limit)

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Finds out where the model is; after a recovery it is back at a checkpoint."""
        is_first = self._last_step is None
        self._last_step = self._last_logged = int(session.run(self._global_step))
        if is_first:
            limit = "inf" if self._limit is None else self._limit
            _logger.info("Training steps [%d,%s)", self._last_step, limit)

    def end(self, session: Any) -> None:
        """Ends the monitors."""
        with session.as_default():
            self.monitors.end(session)

    def make_step(self, step: Step) -> Any:
        """Makes one step.

        Returns:
            The loss, a numpy scalar.

        Raises:
            NanLossDuringTrainingError: The loss is NaN, and that is an error.
        """
        with step.session.as_default():
            try:
                return self._make_step(step)
            except PREEMPTION_ERRORS:
                # The step will be made again, in another session.
                raise
            except END_OF_INPUT:
                raise  # A normal end.
            except v1.train.NanLossDuringTrainingError:
                # No session: a monitor that saves would give out this model as a good one.
                self.monitors.abandon()
                raise
            except BaseException:
                self.monitors.abandon(step.session)
                raise

    def _make_step(self, step: Step) -> Any:
        began = self._clock()
        assert self._last_step is not None
        number = self._last_step + 1
        feed_dict = self._next_feed()
        fetches = {
            "train_op": self._fetches.train_op,
            "loss": self._fetches.loss,
            "step_after": self._fetches.step_after,
            "outputs": self.monitors.step_begin(step.session.graph, number),
        }
        values = self._run(step, number, fetches, feed_dict)
        self._feeds.clear()
        loss, step_after = values["loss"], int(values["step_after"])
        must_stop = self.monitors.step_end(number, self._outputs(values))
        self._check(loss)
        self.monitors.post_step(number, step.session)
        if must_stop:
            step.request_stop()
        else:
            self._log_step(step_after, loss, self._clock() - began)
        self._last_step = step_after
        return loss

    def _next_feed(self) -> Any:
        """Returns the feeds of the step; a repeated step takes the same, so none are lost."""
        if self._feed_fn is None:
            return None
        if not self._feeds:
            self._feeds.append(self._feed_fn())
        return self._feeds[0]

    def _run(self, step: Step, number: int, fetches: Any, feed_dict: Any) -> Any:
        try:
            return step.run(fetches, feed_dict=feed_dict)
        except PREEMPTION_ERRORS:
            raise
        except BaseException:
            try:
                self.monitors.post_step(number, step.session)
            except Exception as second:
                _logger.error(
                    "A monitor failed after a failed step %d: %s", number, describe(second)
                )
            raise

    def _outputs(self, values: Mapping[str, Any]) -> dict[Any, Any]:
        outputs = dict(values["outputs"])
        if self._fetches.train_op_key is not None:
            outputs.setdefault(self._fetches.train_op_key, values["train_op"])
        # Monitors see the same loss as the log and the caller.
        outputs.update(dict.fromkeys(self._fetches.loss_keys, values["loss"]))
        return outputs

    def _check(self, loss: Any) -> None:
        if np.ndim(loss):
            raise ValueError(
                f"loss_op has the shape {np.shape(loss)}, expected a scalar: reduce it, for "
                "example with tf.reduce_mean"
            )
        if not np.isnan(loss):
            return
        if self._fail_on_nan_loss:
            _logger.error("Model diverged with loss = NaN.")
            raise v1.train.NanLossDuringTrainingError
        _logger.warning("Model diverged with loss = NaN.")

    def _log_step(self, step_after: int, loss: Any, secs: float) -> None:
        if step_after <= (self._last_step or 0):
            _logger.error(
                "Global step was not incremented by train op at step %s: new step %d.",
                *(self._last_step, step_after),
            )
        is_last = self._limit is not None and step_after >= self._limit
        if is_last or step_after - self._last_logged >= self._log_every_steps:
            _logger.info("training step %d, loss = %.5f (%.3f sec/batch).", step_after, loss, secs)
            self._last_logged = step_after
