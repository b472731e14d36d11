"""LSTM cells whose kernels have masks, from plain variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from .masks import apply_mask

v1 = tf.compat.v1

_ZEROS = v1.zeros_initializer()


class LSTMStateTuple(NamedTuple):
    """The state of an LSTM cell: `c` `[batch, num_units]`, and the output `h`.

    `state_size` is one with numbers in place of tensors.
    """

    c: Any
    h: Any


class MaskedLSTMCell:
    """An LSTM cell (Hochreiter and Schmidhuber, 1997) whose kernel has one mask.

    With the gates i, j, f, o = split([inputs, h] @ (mask * kernel) + bias):

      c' = sigmoid(f + forget_bias) * c + sigmoid(i) * activation(j)
      h' = sigmoid(o) * activation(c')

    Peepholes (Sak et al., 2014, arXiv:1402.1128) add w_f * c to f, w_i * c to i, and w_o * c' to o;
    a projection multiplies h' by a matrix. Only the kernel of the gates has a mask:
    `[input depth + output size, 4 * num_units]`.

    A cell can be called step by step, `output, state = cell(inputs, state)`, and goes into
    `tf.compat.v1.nn.static_rnn` and `dynamic_rnn`. All of its calls share its variables, named as
    TensorFlow's cells name them: `kernel`, `bias`, `w_f_diag`, `w_i_diag`, `w_o_diag`,
    `projection/kernel`, and here `mask` and `threshold`.

    Args:
      num_units: Number of units.
      use_peepholes: Connects the gates with c.
      cell_clip: Bound for the absolute values of c; None for none.
      initializer: Of the kernels and peepholes; the scope's by default.
      num_proj: Size of the projected output; None for no projection.
      proj_clip: Bound for the absolute values of the projected output.
      num_unit_shards: Accepted, without effect: use a partitioner for the variable scope.
      num_proj_shards: Accepted, without effect.
      forget_bias: Added to the forget gate; 1 has the cell remember in the beginning.
      state_is_tuple: False for a state that is one tensor, c and h joined along the last axis.
      activation: In place of tanh; a function, or the name of one in `tf.nn`.
      reuse: As for `tf.compat.v1.variable_scope`.
      name: Variable scope; "masked_lstm_cell", made unique, by default.
    """

    _default_name = "masked_lstm_cell"

    def __init__(
        self,
        num_units: int,
        use_peepholes: bool = False,
        cell_clip: float | None = None,
        initializer: Any = None,
        num_proj: int | None = None,
        proj_clip: float | None = None,
        num_unit_shards: int | None = None,
        num_proj_shards: int | None = None,
        forget_bias: float = 1.0,
        state_is_tuple: bool = True,
        activation: Callable[[Any], Any] | str | None = None,
        reuse: Any = None,
        name: str | None = None,
    ) -> None:
        self._num_units = num_units
        self._use_peepholes = use_peepholes
        self._cell_clip = cell_clip
        self._initializer = initializer
        self._num_proj = num_proj
        self._proj_clip = proj_clip
        self._forget_bias = forget_bias
        self._state_is_tuple = state_is_tuple
        activation = tf.tanh if activation is None else activation
        self._activation: Any = (
            getattr(tf.nn, activation) if isinstance(activation, str) else activation
        )
        self._reuse = reuse
        self._name = name
        self._variables: dict[str, Any] = {}
        self._masked_kernel: Any = None

    @property
    def state_size(self) -> LSTMStateTuple | int:
        """Sizes of c and h, or their sum if the state is one tensor."""
        sizes = LSTMStateTuple(self._num_units, self.output_size)
        return sizes if self._state_is_tuple else sum(sizes)

    @property
    def output_size(self) -> int:
        """Size of the output: `num_proj`, or `num_units` without a projection."""
        return self._num_units if self._num_proj is None else self._num_proj

    @property
    def variables(self) -> list[Any]:
        """The variables that are trained; empty before the first call."""
        return list(self._variables.values())

    trainable_variables = weights = trainable_weights = variables

    def zero_state(self, batch_size: Any, dtype: Any) -> Any:
        """Returns a state of zeros: `[batch_size, size]` each."""
        sizes = LSTMStateTuple(self._num_units, self.output_size)
        if not self._state_is_tuple:
            return tf.zeros([batch_size, sum(sizes)], dtype)
        return LSTMStateTuple(*[tf.zeros([batch_size, size], dtype) for size in sizes])

    def build(self, inputs_shape: Any, dtype: Any = tf.float32) -> None:
        """Makes the variables, unless they are made.

        Args:
          inputs_shape: `[batch, depth]`; the depth has to be known.
          dtype: Of the variables.

        Raises:
          ValueError: The depth is unknown.
        """
        if self._masked_kernel is not None:
            return
        depth = tf.TensorShape(inputs_shape).as_list()[-1]
        if depth is None:
            raise ValueError(
                f"inputs have the shape {inputs_shape}: their last dimension has to be known"
            )
        # Variables cannot be made in a loop's body. The product is the same in each turn, and is
        # fetched from outside.
        with (
            tf.init_scope(),
            v1.variable_scope(self._name, self._default_name, reuse=self._reuse) as scope,
        ):
            self._make_variables(int(depth), dtype)
            self._masked_kernel = apply_mask(self._variables["kernel"], scope)

    def __call__(self, inputs: Any, state: Any, scope: Any = None) -> tuple[tf.Tensor, Any]:
        """Makes one step.

        Args:
          inputs: `[batch, depth]`.
          state: As `zero_state` and the last step returned it.
          scope: Variable scope for the first call, in place of the cell's name.

        Returns:
          The output, `[batch, output_size]`, and the new state.

        Raises:
          ValueError: The depth is unknown, or not that of the first call.
        """
        inputs = tf.convert_to_tensor(inputs)
        self._name = self._name if scope is None else scope
        self.build(inputs.shape, inputs.dtype)
        if self._state_is_tuple:
            c, h = state
        else:
            c, h = tf.split(state, [self._num_units, self.output_size], axis=1)
        new_c, new_h = self._step(inputs, c, h)
        if self._state_is_tuple:
            return new_h, LSTMStateTuple(new_c, new_h)
        return new_h, tf.concat([new_c, new_h], 1)

    def _step(self, inputs: tf.Tensor, c: tf.Tensor, h: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        gates = tf.matmul(tf.concat([inputs, h], 1), self._masked_kernel)
        gates = tf.nn.bias_add(gates, self._variables["bias"])
        i, j, f, o = tf.split(gates, 4, axis=1)
        f += tf.cast(self._forget_bias, f.dtype)
        if self._use_peepholes:
            f += self._variables["w_f_diag"] * c
            i += self._variables["w_i_diag"] * c
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * self._activation(j)
        if self._cell_clip is not None:
            c = tf.clip_by_value(c, -self._cell_clip, self._cell_clip)
        if self._use_peepholes:
            o += self._variables["w_o_diag"] * c
        h = tf.sigmoid(o) * self._activation(c)
        if self._num_proj is not None:
            h = tf.matmul(h, self._variables["projection/kernel"])
            if self._proj_clip is not None:
                h = tf.clip_by_value(h, -self._proj_clip, self._proj_clip)
        return c, h

    def _make_variables(self, depth: int, dtype: Any) -> None:
        units, random = self._num_units, self._initializer
        shapes: dict[str, tuple[list[int], Any]] = {
            "kernel": ([depth + self.output_size, 4 * units], random),
            "bias": ([4 * units], _ZEROS),
        }
        if self._use_peepholes:
            shapes |= {f"w_{gate}_diag": ([units], random) for gate in "fio"}
        if self._num_proj is not None:
            shapes["projection/kernel"] = ([units, self._num_proj], random)
        for name, (shape, initializer) in shapes.items():
            self._variables[name] = v1.get_variable(name, shape, dtype, initializer)


class MaskedBasicLSTMCell(MaskedLSTMCell):
    """An LSTM cell without peepholes, clipping and projection, whose kernel has one mask.

    Args:
      num_units: Number of units.
      forget_bias: Added to the forget gate; 1 has the cell remember in the beginning.
      state_is_tuple: False for a state that is one tensor, c and h joined along the last axis.
      activation: In place of tanh; a function, or the name of one in `tf.nn`.
      reuse: As for `tf.compat.v1.variable_scope`.
      name: Variable scope; "masked_basic_lstm_cell", made unique, by default.
    """

    _default_name = "masked_basic_lstm_cell"

    def __init__(
        self,
        num_units: int,
        forget_bias: float = 1.0,
        state_is_tuple: bool = True,
        activation: Callable[[Any], Any] | str | None = None,
        reuse: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            num_units,
            forget_bias=forget_bias,
            state_is_tuple=state_is_tuple,
            activation=activation,
            reuse=reuse,
            name=name,
        )
