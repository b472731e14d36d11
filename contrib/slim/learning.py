"""`tf.contrib.slim.learning`, which TensorFlow 2 removed, on today's TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from ...data_plane.options import DataPlane
from ...loops.slim import slim_loop
from ...loops.slim_options import USE_DEFAULT as _USE_DEFAULT, SlimOptions, TrainStepFunction, among
from ...loops.train_step import train_step
from ..training.train_ops import (
    Pair,
    after_updates,
    apply_and_return,
    clip_gradient_norms,
    multiply_gradients,
    step_counter,
    summarize,
    trained_variables,
)
from .running import Place, check_arguments, run_in_place

__all__ = [
    "add_gradients_summaries",
    "clip_gradient_norms",
    "create_train_op",
    "multiply_gradients",
    "train",
    "train_step",
]


def train(
    train_op: Any,
    logdir: str | None,
    train_step_fn: TrainStepFunction = train_step,
    train_step_kwargs: Any = _USE_DEFAULT,
    log_every_n_steps: int | None = 1,
    graph: tf.Graph | None = None,
    master: str = "",
    is_chief: bool = True,
    global_step: Any = None,
    number_of_steps: int | None = None,
    init_op: Any = _USE_DEFAULT,
    init_feed_dict: Any = None,
    local_init_op: Any = _USE_DEFAULT,
    init_fn: Callable[[tf.compat.v1.Session], Any] | None = None,
    ready_op: Any = _USE_DEFAULT,
    summary_op: Any = _USE_DEFAULT,
    save_summaries_secs: float | None = 600,
    summary_writer: Any = _USE_DEFAULT,
    startup_delay_steps: int = 0,
    saver: tf.compat.v1.train.Saver | None = None,
    save_interval_secs: float | None = 600,
    sync_optimizer: Any = None,
    session_config: Any = None,
    session_wrapper: Callable[[Any], Any] | None = None,
    trace_every_n_steps: int | None = None,
    ignore_live_threads: bool = False,
    *,
    data_plane: DataPlane | None = None,
) -> Any:
    """Runs the training loop on a graph, until the step function stops it or the input ends.

    The chief restores the newest checkpoint of `logdir`, or else initializes the model; the other
    tasks wait for it.

    Example::

        with tf.Graph().as_default():
            loss = build_model()
            optimizer = tf.compat.v1.train.AdamOptimizer()
            train_op = create_train_op(loss, optimizer, clip_gradient_norm=5.0)
            last_loss = train(train_op, "/tmp/model", number_of_steps=1000)

    Differences from the original:

    * A call at or beyond `number_of_steps` makes no step, and `number_of_steps` holds also where
      `train_step_kwargs` has no "should_stop".
    * A task that loses a parameter server continues in a new session.
    * Synchronous training ends at once, not after 120 s: with the last step comes a token for
      every worker that waits for one.
    * The default step makes one run where the original made three or four; "should_log" is not
      missed when another worker makes the step with the round number. Traces are named by the
      global step after the step.
    * Summaries are made in the training step, and do not take a batch of their own.
    * The end of a Python iterator (`StopIteration`) is a normal end, like that of the input.
    * When an error ends the loop, the chief saves a checkpoint first; after a NaN without a mention
      in the directory's `checkpoint` file.
    * The graph is finalized only meanwhile, and may be trained again.

    Args:
        train_op: Makes a step and gives the loss, a scalar `Tensor`.
        logdir: Directory to which the chief writes events, traces and checkpoints, and from which
            it resumes. None or "" writes nothing.
        train_step_fn: Called for each step with the session, `train_op`, `global_step` and
            `train_step_kwargs`; returns the loss, and whether to stop. It has to run `train_op`
            in the session that it gets.
        train_step_kwargs: A dictionary for `train_step_fn`. The default one has the boolean
            scalar tensors "should_stop" (the global step is at `number_of_steps`), "should_log"
            and, if traces are written, "should_trace" and "logdir". "summary_writer" is added to
                it, and also to a given dictionary.
        log_every_n_steps: Global steps between two log lines with the loss; None or 0 logs none.
        graph: The graph to train; the default graph if None.
        master: Master string of this task's TensorFlow server, "grpc://host:port", or "" to train
            in this process alone.
        is_chief: Whether this task is the one that initializes, restores, saves and summarizes.
        global_step: The step counter, an integer scalar variable or tensor. None takes the
            graph's own, which is made if there is none.
        number_of_steps: Global step at which training ends, above 0; None: it does not.
        init_op: Initializes the model where there is no checkpoint, by default all global
            variables; None does nothing.
        init_feed_dict: Feeds of `init_op`.
        local_init_op: Initializes this task's own state, by default local variables and lookup
            tables; None does nothing.
        init_fn: Called with the session after `init_op`, only where there is no checkpoint.
        ready_op: Gives the names of uninitialized variables, a string tensor of shape [n], by
            default of all global and local variables; None takes the model for ready.
        summary_op: Gives the serialized summaries, by default all of the graph's; None writes
            none.
        save_summaries_secs: Seconds between the chief's summaries, and between values of
            `global_step/sec`; the first come with the first step. None or 0 writes none.
        summary_writer: A `tf.compat.v1.summary.FileWriter`, by default one for `logdir`; None
            writes no events.
        startup_delay_steps: Global step at which a task that is not the chief begins; 0 with
            `sync_optimizer`.
        saver: Saves and restores, by default all of the graph's variables.
        save_interval_secs: Seconds between the chief's checkpoints; there is one at the start,
            and one at the end in any case. None or 0 saves only that.
        sync_optimizer: The `tf.compat.v1.train.SyncReplicasOptimizer` behind `train_op`, or a list
            of them; None trains asynchronously.
        session_config: A `tf.compat.v1.ConfigProto`, or None.
        session_wrapper: Called with each session; its result is the session of `train_step_fn`.
        trace_every_n_steps: Global steps between two traces of a step of the chief, as
            `tf_trace-<step>.json` in `logdir` and in the events; None writes none.
        ignore_live_threads: Accepted, without effect: a thread that does not end is never an error.
        data_plane: How tensors cross between tasks, a `paramserve.DataPlane`; None: as usual.

    Returns:
        The last step's loss; None if there was no step.

    Raises:
        ValueError: `train_op` is None; `logdir` is None although `summary_op`, `saver` or
            `trace_every_n_steps` is given; `startup_delay_steps` is not 0 although
            `sync_optimizer` is given; `number_of_steps` or `trace_every_n_steps` is not above 0;
            `sync_optimizer` is something else; or `master` is malformed.
        TypeError: `global_step` is no integer scalar, or `train_step_fn` returned no pair.
        RuntimeError: There is no graph, or initialization left variables uninitialized.
        tf.errors.DeadlineExceededError: The servers or the model were not ready in 2 hours.
    """
    given = locals()
    options = among(SlimOptions, given)
    del ignore_live_threads
    check_arguments(train_op, logdir, options)
    return run_in_place(
        slim_loop,
        among(Place, given),
        options,
        train_op=train_op,
        global_step=global_step,
        session_wrapper=session_wrapper,
    )


def add_gradients_summaries(grads_and_vars: Iterable[Pair]) -> list[Any]:
    """Adds two summaries for each gradient: its histogram and its L2 norm.

    As `paramserve.contrib.training.add_gradients_summaries`, with tags that end with "/gradient"
    and "/gradient_norm".
    """
    return summarize(grads_and_vars, "/gradient")


def create_train_op(
    total_loss: Any,
    optimizer: tf.compat.v1.train.Optimizer,
    global_step: Any = 0,
    update_ops: Iterable[Any] | None = None,
    variables_to_train: Sequence[Any] | None = None,
    clip_gradient_norm: float = 0,
    summarize_gradients: bool = False,
    gate_gradients: int = tf.compat.v1.train.Optimizer.GATE_OP,
    aggregation_method: int | None = None,
    colocate_gradients_with_ops: bool = False,
    gradient_multipliers: Mapping[Any, Any] | None = None,
    check_numerics: bool = True,
) -> Any:
    """Creates the op that computes the gradients, applies them and returns the loss.

    Gradients are first multiplied, then clipped, then summarized. All arguments but two, the result
    and the errors are those of `paramserve.contrib.training.create_train_op`. The two are:

    * `clip_gradient_norm`: The largest L2 norm of a single gradient; 0 clips none.
    * `gradient_multipliers`: A dict from a variable, or the name of its op, to the factor of its
      gradient; None or an empty one multiplies none. A variable with a multiplier but without a
      gradient is a `ValueError`.
    """
    variables = trained_variables(variables_to_train)
    loss = after_updates(tf.convert_to_tensor(total_loss), update_ops)
    pairs = optimizer.compute_gradients(
        loss,
        variables,
        gate_gradients=gate_gradients,
        aggregation_method=aggregation_method,
        colocate_gradients_with_ops=colocate_gradients_with_ops,
    )
    if gradient_multipliers:
        with tf.name_scope("multiply_grads"):
            pairs = multiply_gradients(pairs, gradient_multipliers)
    if clip_gradient_norm and clip_gradient_norm > 0:
        with tf.name_scope("clip_grads"):
            pairs = clip_gradient_norms(pairs, clip_gradient_norm)
    if summarize_gradients:
        with tf.name_scope("summarize_grads"):
            add_gradients_summaries(pairs)
    return apply_and_return(loss, optimizer, pairs, step_counter(global_step), check_numerics)
