"""`TrainSpec`, what a build function returns, and `TaskContext`, what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError

# TensorFlow and Keras are untyped; these names only tell a reader what is meant.
Tensor = Any
Operation = Any
Variable = Any
GradientsAndVariables = Sequence[tuple[Tensor, Variable]]
EvalMetrics = Mapping[str, tuple[Tensor, Tensor]]

LOOPS = ("training", "learn", "model_pruning")


@dataclass(frozen=True)
class TaskContext:
    """The task in which a model is being built.

    Attributes:
        role: "chief", "worker" or "evaluator".
        index: Task index within the role, from 0.
        num_workers: Workers the job was planned with. A worker that joins a running job may
            have an index of `num_workers` or more.
        num_ps: Parameter servers; 0 when everything is local, as in an evaluator.
        sync: Whether gradients of the workers are aggregated into common steps.
        params: What the user gave as `--param key=value`.
    """

    role: str = "worker"
    index: int = 0
    num_workers: int = 1
    num_ps: int = 0
    sync: bool = True
    params: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_chief(self) -> bool:
        """Whether this is the chief, which builds the graph but runs no input."""
        return self.role == "chief"


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """A model ready to be trained: what `build(task)` returns.

    The build function runs inside a fresh graph whose device scope puts variables on the
    parameter servers and all else on the task. The global step exists already
    (`tf.compat.v1.train.get_global_step()`). A ten-line model::

        def build(task):
            x, y = input_for(task.index)
            w = tf.compat.v1.get_variable("w", [10])
            loss = tf.reduce_mean((tf.linalg.matvec(x, w) - y) ** 2)
            return TrainSpec(
                loss=loss,
                optimizer=tf.compat.v1.train.GradientDescentOptimizer(0.1),
                examples=tf.shape(x)[0],
            )

    Attributes:
        loss: Scalar float tensor, the mean over the examples of one worker's step.
        optimizer: A `tf.compat.v1.train.Optimizer`; the service computes, aggregates (sync
            mode) and applies its gradients. Give this or `train_op`.
        train_op: Operation or tensor that does one training step and increments the global
            step, for models that bring their own. Async only: the service cannot aggregate
            gradients it does not see.
        examples: Examples in one worker's step: an int, or a scalar integer tensor.
        variables: What to train; by default the graph's trainable variables (of
            `keras_model` where that is given).
        keras_model: A Keras 3 model called in the build function. Its state updates (moving
            averages, seed generators) run with each step.
        metrics: Name to scalar tensor, reported beside the loss.
        hooks: `tf.compat.v1.train.SessionRunHook` instances, run in every worker.
        transform_gradients: Called with the `(gradient, variable)` pairs of one worker and
            returns those to apply: clipping, multipliers.
        evaluate: Called with a `TaskContext` of role "evaluator" in a fresh graph; builds the
            model on evaluation data, with variables of the same names, and returns name to
            `(value, update_op)` as `tf.compat.v1.metrics` functions do. The updates run until
            the input ends.
        loop: Which training loop the workers run: "training", "learn" or "model_pruning", those of
            `paramserve.contrib`.
        loop_args: Arguments of that loop's `train` function, by name. What it leaves out is as the
            job's options say, or else as documented there. Whatever is about the place (master,
            chief, waiting, directory) comes from the task; `chief_only_hooks`, and monitors
            that run in the chief only, run in the first worker.
    """

    loss: Tensor
    optimizer: Any = None
    train_op: Operation | Tensor | None = None
    examples: Tensor | int = 1
    variables: Sequence[Variable] | None = None
    keras_model: Any = None
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    hooks: Sequence[Any] = ()
    transform_gradients: Callable[[GradientsAndVariables], GradientsAndVariables] | None = None
    evaluate: Callable[[TaskContext], EvalMetrics] | None = None
    loop: str = "training"
    loop_args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.loop not in LOOPS:
            raise UsageError(f"TrainSpec.loop={self.loop!r}, expected one of {', '.join(LOOPS)}")
        if (self.optimizer is None) == (self.train_op is None):
            given = "neither" if self.optimizer is None else "both"
            raise UsageError(f"TrainSpec needs either optimizer= or train_op=, got {given}")


BuildFn = Callable[[TaskContext], TrainSpec]
