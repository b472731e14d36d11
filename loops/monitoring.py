"""Several monitors, called as one: those of `paramserve.contrib.learn.monitors`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import tensorflow as tf

from ..reasons import describe, reason_of
from .fetches import output_key, resolve

_logger = logging.getLogger(__name__)


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
