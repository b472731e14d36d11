"""Monitors that log values."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from .every_n import EveryN

_logger = logging.getLogger(__name__)


class PrintTensor(EveryN):
    """Logs "Step N: tag = value, ...", at level INFO.

    Args:
        tensor_names: Names of tensors or variables, such as "loss:0"; or a dict from what to call
            them in the log to their names.
        every_n: Steps from one line to the next.
        first_n: Number of the last of the first steps, which are all logged.
    """

    def __init__(
        self,
        tensor_names: Mapping[str, str] | Iterable[str],
        every_n: int = 100,
        first_n: int = 1,
    ) -> None:
        super().__init__(every_n_steps=every_n, first_n_steps=first_n)
        self._names = (
            dict(tensor_names)
            if isinstance(tensor_names, Mapping)
            else {name: name for name in tensor_names}
        )

    def every_n_step_begin(self, step: int) -> list[Any]:
        """Asks for the values."""
        super().every_n_step_begin(step)
        return list(self._names.values())

    def every_n_step_end(self, step: int, outputs: Mapping[Any, Any]) -> bool:
        """Logs those that are there."""
        super().every_n_step_end(step, outputs)
        _logger.info("Step %d: %s", step, _listed(self._names, outputs))
        return False


class LoggingTrainable(EveryN):
    """Logs "Logging Trainable: Step N: name = value, ...", at level INFO.

    Args:
        scope: A regular expression that matches the beginning of the names of the variables to
            log; None logs all trainable variables.
        every_n: Steps from one line to the next.
        first_n: Number of the last of the first steps, which are all logged.
    """

    def __init__(self, scope: str | None = None, every_n: int = 100, first_n: int = 1) -> None:
        super().__init__(every_n_steps=every_n, first_n_steps=first_n)
        self._scope = scope
        self._names: list[str] = []

    def every_n_step_begin(self, step: int) -> list[Any]:
        """Asks for the variables of the default graph."""
        super().every_n_step_begin(step)
        trainable = tf.compat.v1.trainable_variables(scope=self._scope)
        self._names = [variable.name for variable in trainable]
        return list(self._names)

    def every_n_step_end(self, step: int, outputs: Mapping[Any, Any]) -> bool:
        """Logs those that are there."""
        super().every_n_step_end(step, outputs)
        listed = _listed({name: name for name in self._names}, outputs)
        _logger.info("Logging Trainable: Step %d: %s", step, listed)
        return False


def _listed(names: Mapping[str, str], outputs: Mapping[Any, Any]) -> str:
    """Writes "tag = value, ..."; `names` are output names by tag."""
    found = {tag: outputs[name] for tag, name in names.items() if name in outputs}
    return ", ".join(f"{tag} = {value}" for tag, value in found.items())
