"""The training step that the slim loop makes unless it is given another, its session and traces."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, MutableMapping
from typing import Any

import tensorflow as tf

from ..data_plane.placed_graph import ancestors
from ..tf_internals import Timeline
from .hooks import GlobalStepHook
from .loop import Step

v1 = tf.compat.v1
# A function from the global step to the value of a loop's condition.
Decision = Callable[[int], bool]
_logger = logging.getLogger(__name__)


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
            self._known[operation] = not self._wanted.isdisjoint(ancestors([operation]))
        return self._known[operation]

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


class EveryN:
    """Schedule of an action that is due every so many global steps.

    A worker that is not alone sees only some of the steps, and not always the multiple itself; so
    it is due at the first step seen after one as well.

    Args:
        every: Global steps, at least 1.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._seen: int | None = None

    def is_due(self, step: int) -> bool:
        """Returns whether it is due at the step; called once a step."""
        seen, self._seen = self._seen, step
        return step % self._every == 0 or (
            seen is not None and step // self._every > seen // self._every
        )


def train_step(
    sess: Any, train_op: Any, global_step: Any, train_step_kwargs: MutableMapping[str, Any]
) -> tuple[Any, bool]:
    """Makes one training step; logs the loss and writes a trace when they are due.

    It is the default of `train`, and may be called by other step functions::

        def validate_too(sess, train_op, global_step, train_step_kwargs):
            loss, should_stop = train_step(sess, train_op, global_step, train_step_kwargs)
            if loss < 0.1:
                _logger.info("accuracy %g", sess.run(accuracy))
            return loss, should_stop

    Args:
        sess: The session.
        train_op: Makes the step and gives the loss.
        global_step: The global step, an integer scalar variable or tensor.
        train_step_kwargs: Entries of `train`, or of the caller. Known are "should_stop",
            "should_log" and "should_trace", boolean scalar tensors; "logdir", the directory of
            traces; and "summary_writer", which is told of traces.

    Returns:
        The value of `train_op`, and whether training is over.

    Raises:
        ValueError: There is "should_trace" but no "logdir".
    """
    started = time.perf_counter()
    options = metadata = None
    if _is_trace_due(sess, train_step_kwargs):
        options = v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE)
        metadata = v1.RunMetadata()
    loss = sess.run(train_op, options=options, run_metadata=metadata)
    secs = time.perf_counter() - started
    step, answers = _look_after(sess, global_step, train_step_kwargs)
    if metadata is not None:
        _write_trace(metadata, step, train_step_kwargs)
    if answers.get("should_log", False):
        _logger.info("global step %d: loss = %.4f (%.3f sec/step)", step, loss, secs)
    return loss, bool(answers.get("should_stop", False))


def _is_trace_due(sess: Any, kwargs: MutableMapping[str, Any]) -> bool:
    """Asks "should_trace", before the step."""
    if "should_trace" not in kwargs:
        return False
    if "logdir" not in kwargs:
        raise ValueError(
            "train_step_kwargs has 'should_trace' but no 'logdir': logdir must be present when "
            "traces are written, to say where"
        )
    condition = kwargs["should_trace"]
    known = sess.decide(condition) if isinstance(sess, StepSession) else None
    return bool(sess.run(condition)) if known is None else known


def _look_after(
    sess: Any, global_step: Any, kwargs: MutableMapping[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Finds the global step after the step, and the values of the conditions there.

    In the loop's own session all of it is known. Another session needs one more run: together
    with the train op, a resource variable would give the global step from before.
    """
    conditions = {name: kwargs[name] for name in ("should_log", "should_stop") if name in kwargs}
    values: dict[str, Any] = {}
    fetches: dict[str, Any] = {}
    if isinstance(sess, StepSession):
        values["step"] = sess.global_step
        known = {name: sess.decide(condition) for name, condition in conditions.items()}
        values.update({name: answer for name, answer in known.items() if answer is not None})
    else:
        fetches["step"] = global_step
    fetches |= {name: each for name, each in conditions.items() if name not in values}
    if fetches:
        values.update(sess.run(fetches))
    return int(values.pop("step")), values


def _write_trace(metadata: Any, step: int, kwargs: MutableMapping[str, Any]) -> None:
    """Writes the step's times for chrome://tracing, and its whole metadata to the events."""
    path = tf.io.gfile.join(kwargs["logdir"], f"tf_trace-{step}.json")
    trace = Timeline(metadata.step_stats).generate_chrome_trace_format()
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(trace)
    _logger.info("Wrote a trace of the step to %s.", path)
    if (writer := kwargs.get("summary_writer")) is None:
        return
    try:
        writer.add_run_metadata(metadata, f"run_metadata-{step}", step)
    except ValueError:
        # The writer was told of this step already, before the model went back to a checkpoint.
        _logger.warning("The events have a trace of step %d already.", step)
