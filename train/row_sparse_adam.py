"""`RowSparseAdamOptimizer`: Adam whose cost for a table does not grow with the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .adam import AdamOptimizer


class RowSparseAdamOptimizer(AdamOptimizer):
    """Adam that leaves rows without a gradient unchanged.

    A sparse gradient (`tf.IndexedSlices`) comes from an embedding lookup, for example. With one, a
    step reads and writes only the gradient's rows, of the variable and of both averages. Gradients
    of one row are summed first. With t the number of all steps so far, a row becomes::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        row -= learning_rate * sqrt(1 - beta2**t) / (1 - beta1**t) * m / (sqrt(v) + epsilon)

    This is Adam's formula. The difference is in the rows that a step does not touch. Adam takes
    their gradient as zero: it decays their m and v in each step, and moves them along m. Here their
    m, v and weights stay unchanged until they are touched again. So a row's averages are over the
    steps that touched it, and momentum does not move it in between. A row that is touched rarely
    makes other steps than with Adam. Bias correction uses t. So the first steps of a row that is
    touched late may be large. They reach `(1 - beta1) / sqrt(1 - beta2)` times the learning rate:
    3.2 with the defaults.

    When every step touches all rows, and for dense gradients, it is Adam. Slots and checkpoints
    have Adam's names: each of the two continues from the other's checkpoint. Arguments are those of
    `AdamOptimizer`.
    """

    def _apply_sparse(self, grad: Any, var: Any) -> Any:
        def replace(table: Any, rows: Any) -> Any:
            return tf.compat.v1.scatter_update(table, grad.indices, rows, self._use_locking)

        def subtract(table: Any, rows: Any) -> Any:
            return tf.compat.v1.scatter_sub(table, grad.indices, rows, self._use_locking)

        return self._update_rows(grad.values, var, grad.indices, replace, subtract)

    def _resource_apply_sparse(self, grad: Any, var: Any, indices: Any) -> Any:
        def replace(table: Any, rows: Any) -> Any:
            return tf.raw_ops.ResourceScatterUpdate(
                resource=table.handle, indices=indices, updates=rows
            )

        def subtract(table: Any, rows: Any) -> Any:
            return tf.raw_ops.ResourceScatterSub(
                resource=table.handle, indices=indices, updates=rows
            )

        return self._update_rows(grad, var, indices, replace, subtract)

    def _update_rows(
        self,
        grad: Any,
        var: Any,
        indices: Any,
        replace: Callable[[Any, Any], Any],
        subtract: Callable[[Any, Any], Any],
    ) -> Any:
        """Updates the rows `indices`, each named once, with gradients of shape [rows, ...]."""
        with self._at(var):
            powers = self._get_beta_accumulators()
            settings = (self._lr_t, self._beta1_t, self._beta2_t, self._epsilon_t)
            beta1_power, beta2_power, rate, beta1, beta2, epsilon = (
                tf.cast(value, var.dtype.base_dtype) for value in (*powers, *settings)
            )
        m, v = self.get_slot(var, "m"), self.get_slot(var, "v")
        new_m = tf.gather(m, indices) * beta1 + grad * (1 - beta1)
        new_v = tf.gather(v, indices) * beta2 + grad * grad * (1 - beta2)
        rate *= tf.sqrt(1 - beta2_power) / (1 - beta1_power)
        return tf.group(
            replace(m, new_m),
            replace(v, new_v),
            subtract(var, rate * new_m / (tf.sqrt(new_v) + epsilon)),
        )
