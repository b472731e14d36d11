"""The interface of a service that tunes hyperparameters."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any


class Tuner(abc.ABC):
    """A tuning session: trials of an experiment, each with other hyperparameters.

    Only the interface; the service behind it chooses the hyperparameters::

        while tuner.next_trial():
            tuner.run_experiment(experiment_fn)
    """

    @abc.abstractmethod
    def next_trial(self) -> bool:
        """Continues with the next trial.

        Returns:
            True if there is one; otherwise the session is over.
        """

    @abc.abstractmethod
    def run_experiment(self, experiment_fn: Callable[[Any, Any], Any]) -> None:
        """Makes the experiment of this trial, runs it, and reports how good it was.

        Args:
            experiment_fn: Takes the run's configuration and the trial's hyperparameters, usually
                `HParams`, and returns the experiment.
        """
