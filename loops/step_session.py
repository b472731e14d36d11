"""The session that a step function gets: its training step goes through the hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .hooks import GlobalStepHook
from .loop import Step

v1 = tf.compat.v1
# A function from the global step to the value of a loop's condition.
Decision = Callable[[int], bool]


class TrainOpFinder:
    """Test of fetches: whether running them makes a training step.

    Args:
        train_op: Makes the step: a fetch, or a structure of them.
        graph: The graph of all fetches.
    """

    def __init__(self, train_op: Any, graph: tf.Graph) -> None:
        self._graph = graph
        self._wanted = set(self._operations(train_op))
        # Fetches are the same in each step, and a search may be long.
        self._known: dict[Any, bool] = {}

    def is_in(self, fetches: Any) -> bool:
        """Returns whether the train op is among the fetches, or is run for one of them."""
        return any(self._leads_to(operation) for operation in self._operations(fetches))

    def _leads_to(self, operation: Any) -> bool:
        if operation not in self._known:
            self._known[operation] = self._search(operation)
        return self._known[operation]

    def _search(self, operation: Any) -> bool:
        seen, waiting = {operation}, [operation]
        while waiting:
            each = waiting.pop()
            if each in self._wanted:
                return True
            sources = {*(tensor.op for tensor in each.inputs), *each.control_inputs} - seen
            seen |= sources
            waiting += sources
        return False

    def _operations(self, fetches: Any) -> list[Any]:
        """Returns the operations behind a structure of fetches; other elements have none."""
        operations = []
        for fetch in tf.nest.flatten(fetches, expand_composites=True):
            try:
                element = self._graph.as_graph_element(fetch)
            except (TypeError, ValueError, KeyError):
                continue  # The session has better words for it.
            operations.append(element.op if isinstance(element, tf.Tensor) else element)
        return operations


class StepSession(tf.compat.v1.Session):
    """A view of a session that lets hooks take part in the training step.

    The first run in an iteration that makes a training step goes through the hooks; all other runs
    do not. In everything else it is the session.

    Args:
        session: The session.
        finder: Recognizes fetches that make a training step.
        progress: Knows the global step after each run through the hooks.
        global_step: The global step, for the steps that no hook saw.
        decisions: Functions that compute the loop's condition tensors without a run, by
            `Tensor.ref()`.
    """

    def __init__(
        self,
        session: tf.compat.v1.Session,
        *,
        finder: TrainOpFinder,
        progress: GlobalStepHook,
        global_step: Any,
        decisions: dict[Any, Decision],
    ) -> None:
        # The base's initializer is not called: this is no further session. The attributes of `self`
        # that the base's methods read are found in `session` (see `__getattr__`).
        self.inner = session
        self._finder = finder
        self._progress = progress
        self._step_tensor = global_step
        self._decisions = decisions
        self._hooked_run: Callable[..., Any] | None = None
        self._saw_step = False

    @property
    def global_step(self) -> int:
        """The global step after the newest training step."""
        return self._progress.value

    def decide(self, condition: Any) -> bool | None:
        """Returns the value of a loop's condition tensor at a step; None for other tensors."""
        decision = self._decisions.get(condition.ref()) if tf.is_tensor(condition) else None
        return None if decision is None else decision(self.global_step)

    def begin_iteration(self, step: Step) -> None:
        """Lets the next training step go through the hooks."""
        self._hooked_run, self._saw_step = step.run, False

    def end_iteration(self) -> None:
        """Finds out the global step, if the step function made none that the hooks saw."""
        self._hooked_run = None
        if not self._saw_step:
            self._look()

    def run(
        self, fetches: Any, feed_dict: Any = None, options: Any = None, run_metadata: Any = None
    ) -> Any:
        """Runs fetches, see the class."""
        if self._hooked_run is None or not self._finder.is_in(fetches):
            return self.inner.run(fetches, feed_dict, options, run_metadata)
        if not self._saw_step:
            self._saw_step = True
            return self._hooked_run(fetches, feed_dict, options, run_metadata)
        result = self.inner.run(fetches, feed_dict, options, run_metadata)
        self._look()
        return result

    def close(self) -> None:
        """Closes the session itself."""
        self.inner.close()

    def _look(self) -> None:
        self._progress.value = int(self.inner.run(self._step_tensor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    def __del__(self) -> None:
        # The base's would close the session.
        pass
