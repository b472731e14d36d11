"""Schedule of mask updates and of their sparsity."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import tensorflow as tf

from .hparams import (
    WeightMap,
    check_block_dims,
    check_hparams,
    get_pruning_hparams,
    parse_block_dims,
    parse_sparsity,
)
from .magnitude import mask_by_blocks
from .masks import assign, get_masks, get_thresholds, get_weights, op_name, read, slices

v1 = tf.compat.v1

_logger = logging.getLogger(__name__)


class Pruning:
    """The ops that prune the masked weights of the default graph.

    The sparsity rises from `initial_sparsity` to `target_sparsity` between two global steps: with
    p = (step - begin) / (end - begin), cut to [0, 1], it is
    target + (initial - target) * (1 - p) ** exponent (Zhu and Gupta, 2017, arXiv:1710.01878, with
    an exponent of 3). A weight with a sparsity of its own gets the same share of it, sparsity *
    own / target, which is exact if initial_sparsity is 0.

    Example::

        hparams = get_pruning_hparams().parse("target_sparsity=0.9,pruning_frequency=100")
        pruning = Pruning(hparams, global_step)
        mask_update_op = pruning.conditional_mask_update_op()  # After all masks are applied.

    Args:
      spec: Hyperparameters, by default those of `get_pruning_hparams()`.
      global_step: A scalar; the default graph's global step by default. It is read when the ops
        run, after the control dependencies under which they were made.
      sparsity: A scalar tensor or variable in place of the schedule.

    Attributes:
      last_mask_update_step: An int32 variable, `<name>/last_mask_update_step`: the global step of
        the last update.

    Raises:
      ValueError: A hyperparameter is out of its range, or there is no global step.
    """

    def __init__(self, spec: Any = None, global_step: Any = None, sparsity: Any = None) -> None:
        self._spec = get_pruning_hparams() if spec is None else spec
        check_hparams(self._spec)
        self._sparsities = WeightMap(
            "weight_sparsity_map", self._spec.weight_sparsity_map, parse_sparsity
        )
        self._blocks = WeightMap("block_dims_map", self._spec.block_dims_map, parse_block_dims)
        self._default_block = check_block_dims(self._spec.block_height, self._spec.block_width)
        self._global_step = v1.train.get_global_step() if global_step is None else global_step
        if self._global_step is None:
            raise ValueError(
                "pruning needs a global step, and the graph has none: give global_step, or call "
                "tf.compat.v1.train.get_or_create_global_step() before"
            )
        self._given_sparsity = sparsity
        self._graph = v1.get_default_graph()
        self.last_mask_update_step = self._make_last_update()
        self._mask_update: tf.Operation | None = None
        self._conditional_update: tf.Operation | None = None

    def sparsity(self) -> tf.Tensor:
        """Returns the sparsity that masks get now, as a float32 scalar; each call makes new ops."""
        with self._building():
            if self._given_sparsity is not None:
                return tf.cast(read(self._given_sparsity), tf.float32)
            return self._scheduled_sparsity()

    def _scheduled_sparsity(self) -> tf.Tensor:
        spec = self._spec
        begin, end = spec.sparsity_function_begin_step, spec.sparsity_function_end_step
        share = (tf.cast(self._step(), tf.float32) - begin) / (end - begin)
        left = 1.0 - tf.clip_by_value(share, 0.0, 1.0)
        fall = (
            spec.initial_sparsity - spec.target_sparsity
        ) * left**spec.sparsity_function_exponent
        return spec.target_sparsity + fall

    def mask_update_op(self) -> tf.Operation:
        """Returns an op that updates all masks and thresholds, whatever the step is.

        It is made once, for the weights that have masks at the first call.

        Raises:
          ValueError: The collections of masks and thresholds differ in length, a weight's name
            matches two entries of a map, or `block_pooling_function` is unknown.
        """
        if self._mask_update is None:
            with self._building(), tf.name_scope(f"{self._spec.name}/"):
                update = self._update_all(self._step())
                with tf.control_dependencies([update]):
                    self._mask_update = tf.no_op(name="mask_update")
        return self._mask_update

    def conditional_mask_update_op(self) -> tf.Operation:
        """Returns an op, to be run in every step, that updates masks and thresholds when due.

        It is time from begin_pruning_step to end_pruning_step, once the last update is
        pruning_frequency steps ago. The last update counts as made at step 0 in the beginning.
        It has ops of its own, so that it does not change `mask_update_op`.

        Raises:
          ValueError: As for `mask_update_op`.
        """
        if self._conditional_update is None:
            with self._building(), tf.name_scope(f"{self._spec.name}/"):
                step = self._step()
                update = run_if(self._is_due(step), lambda: self._update_all(step))
                with tf.control_dependencies([update]):
                    self._conditional_update = tf.no_op(name="conditional_mask_update")
        return self._conditional_update

    def add_pruning_summaries(self) -> None:
        """Adds scalar summaries: the schedule, the last update, each mask and threshold."""
        with self._building(), tf.name_scope(f"{self._spec.name}_summaries"):
            v1.summary.scalar("sparsity", self.sparsity())
            v1.summary.scalar("last_mask_update_step", read(self.last_mask_update_step))
            for mask, threshold in zip(get_masks(), get_thresholds(), strict=True):
                zeros = tf.math.zero_fraction(read(mask))
                v1.summary.scalar(f"{op_name(mask)}/sparsity", zeros)
                v1.summary.scalar(f"{op_name(threshold)}/threshold", read(threshold))

    def print_hparams(self) -> None:
        """Logs the hyperparameters as JSON."""
        _logger.info("Pruning hyperparameters: %s", self._spec.to_json())

    def _building(self) -> AbstractContextManager[Any]:
        """Returns the graph of the masks, in any thread; in a branch or a loop, its function."""
        if tf.inside_function():
            return contextlib.nullcontext()
        return cast(AbstractContextManager[Any], self._graph.as_default())

    def _step(self) -> tf.Tensor:
        # TensorFlow's graph optimizer moves a cast before the read that it follows, and then a
        # reference variable is read without waiting for the training op. A maximum prevents it.
        return tf.cast(tf.maximum(read(self._global_step), 0), tf.int32)

    def _make_last_update(self) -> Any:
        with (
            v1.variable_scope(self._spec.name, reuse=v1.AUTO_REUSE) as scope,
            # Beside the step with which it is compared; a tensor may have no device for it.
            v1.device(
                self._global_step.device if isinstance(self._global_step, tf.Variable) else ""
            ),
        ):
            scope.set_partitioner(None)
            return v1.get_variable(
                "last_mask_update_step",
                [],
                dtype=tf.int32,
                initializer=v1.zeros_initializer(),
                trainable=False,
                use_resource=True if self._spec.use_tpu else None,
            )

    def _is_due(self, step: tf.Tensor) -> tf.Tensor:
        spec = self._spec
        due = step >= spec.begin_pruning_step
        if spec.end_pruning_step >= 0:
            due = tf.logical_and(due, step <= spec.end_pruning_step)
        next_update = read(self.last_mask_update_step) + spec.pruning_frequency
        return tf.logical_and(due, next_update <= step)

    def _update_all(self, step: tf.Tensor) -> tf.Operation:
        masks, thresholds, weights = get_masks(), get_thresholds(), get_weights()
        if not len(masks) == len(thresholds) == len(weights):
            raise ValueError(
                f"there are {len(masks)} masks, {len(thresholds)} thresholds and {len(weights)} "
                "weights in the graph's collections: have apply_mask alone add to them"
            )
        if not masks:
            _logger.warning(
                "There is no mask in the graph, so nothing is pruned: use apply_mask or the masked "
                "layers before the mask update op is made."
            )
        sparsity = self.sparsity()
        with tf.control_dependencies([self.last_mask_update_step.assign(step, read_value=False)]):
            updates = [
                self._update(*each, sparsity)
                for each in zip(masks, thresholds, weights, strict=True)
                if not self._is_left_alone(*each)
            ]
            return tf.group(*updates)

    def _is_left_alone(self, mask: Any, _: Any, weight: Any) -> bool:
        parts = filter(None, getattr(self._spec, "do_not_prune", ()))
        return any(part in op_name(x) for part in parts for x in (mask, weight))

    def _update(self, mask: Any, threshold: Any, weight: Any, sparsity: tf.Tensor) -> tf.Operation:
        name = op_name(weight)
        block_dims = self._blocks.get(name) or self._default_block
        sparsity = self._sparsity_of(name, sparsity)
        # On the weight's device, so that neither weight nor mask is sent.
        with tf.name_scope(f"{name}_pruning_ops"), v1.device(slices(mask)[0].device):
            new_mask, new_threshold = mask_by_blocks(
                read(weight),
                read(threshold),
                sparsity,
                self._spec.threshold_decay,
                block_dims=block_dims,
                pooling_type=self._spec.block_pooling_function,
                factorized=self._spec.use_tpu,
            )
            return tf.group(assign(mask, new_mask), assign(threshold, new_threshold))

    def _sparsity_of(self, name: str, sparsity: tf.Tensor) -> tf.Tensor:
        own = self._sparsities.get(name)
        if own is None:
            return sparsity
        if not self._spec.target_sparsity:
            raise ValueError(
                f"weight_sparsity_map gives {name!r} a sparsity of {own} as a share of "
                "target_sparsity, which is 0: make target_sparsity positive"
            )
        return sparsity * (own / self._spec.target_sparsity)


def run_if(predicate: tf.Tensor, make_ops: Callable[[], tf.Operation]) -> tf.Operation:
    """Makes an op that runs what `make_ops` makes when `predicate` is true, else nothing.

    `tf.cond` cannot assign to reference variables under control flow v2. This makes the two dead
    ends and their merger in the graph itself. That works with both kinds of variables, in every
    graph mode, and across devices.

    Args:
      predicate: bool scalar.
      make_ops: Called once; returns the op to run.

    Returns:
      An op; ops that wait for it run in either case.
    """
    skipped, taken = tf.raw_ops.Switch(data=predicate, pred=predicate)
    with tf.control_dependencies([tf.identity(taken)]):
        done = make_ops()
    with tf.control_dependencies([done]):
        after = tf.identity(taken)
    return tf.raw_ops.Merge(inputs=[tf.identity(skipped), after]).output.op
