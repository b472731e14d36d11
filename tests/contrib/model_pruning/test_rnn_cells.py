"""Masked LSTM cells against TensorFlow's own, and with masks."""

import numpy as np
import pytest
import tensorflow as tf

# These have no public name under Keras 3; the masked cells have to agree with them.
from tensorflow.python.keras.layers.legacy_rnn import rnn_cell_impl

from paramserve.contrib.model_pruning import (
    LSTMStateTuple,
    MaskedBasicLSTMCell,
    MaskedLSTMCell,
    Pruning,
    get_masked_weights,
    get_masks,
    get_thresholds,
    get_weights,
)

v1 = tf.compat.v1

pytestmark = [
    pytest.mark.usefixtures("graph"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

BATCH, TIME, DEPTH, UNITS = 3, 4, 5, 6
SEQUENCE = np.random.default_rng(8).normal(size=[BATCH, TIME, DEPTH]).astype(np.float32)
STEPS = list(np.moveaxis(SEQUENCE, 1, 0))


def unroll(cell):
    state = cell.zero_state(BATCH, tf.float32)
    outputs = []
    for inputs in STEPS:
        output, state = cell(inputs, state)
        outputs.append(output)
    return outputs, state


@pytest.mark.parametrize(
    ("masked", "original", "options"),
    [
        (MaskedBasicLSTMCell, rnn_cell_impl.BasicLSTMCell, {}),
        (MaskedBasicLSTMCell, rnn_cell_impl.BasicLSTMCell, {"forget_bias": 0.0}),
        (MaskedBasicLSTMCell, rnn_cell_impl.BasicLSTMCell, {"activation": tf.nn.relu}),
        (MaskedBasicLSTMCell, rnn_cell_impl.BasicLSTMCell, {"state_is_tuple": False}),
        (MaskedLSTMCell, rnn_cell_impl.LSTMCell, {}),
        (MaskedLSTMCell, rnn_cell_impl.LSTMCell, {"use_peepholes": True, "cell_clip": 0.05}),
        (MaskedLSTMCell, rnn_cell_impl.LSTMCell, {"num_proj": 2, "proj_clip": 0.02}),
        (
            MaskedLSTMCell,
            rnn_cell_impl.LSTMCell,
            {"use_peepholes": True, "num_proj": 2, "state_is_tuple": False, "forget_bias": 0.5},
        ),
    ],
)
@pytest.mark.usefixtures("use_resource")
def test_with_masks_of_ones_a_cell_is_tensorflows(start, masked, original, options):
    initializer = v1.random_normal_initializer()
    with v1.variable_scope("ours", initializer=initializer):
        outputs, state = unroll(masked(UNITS, name="cell", **options))
    with v1.variable_scope("theirs", initializer=initializer):
        expected, expected_state = unroll(original(UNITS, name="cell", **options))
    ours = {v.op.name.partition("/")[2]: v for v in v1.trainable_variables("ours")}
    theirs = {v.op.name.partition("/")[2]: v for v in v1.trainable_variables("theirs")}
    assert ours.keys() == theirs.keys()
    copy = [theirs[name].assign(ours[name]) for name in ours]
    session = start()
    session.run(copy)
    values, state, expected, expected_state = session.run(
        [outputs, state, expected, expected_state]
    )
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(values).max() > 0.01
    for one, other in zip(tf.nest.flatten(state), tf.nest.flatten(expected_state), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("cell", "rows"),
    [
        (MaskedBasicLSTMCell(UNITS), DEPTH + UNITS),
        (MaskedLSTMCell(UNITS), DEPTH + UNITS),
        (MaskedLSTMCell(UNITS, num_proj=2), DEPTH + 2),
    ],
)
def test_a_cell_has_one_mask_however_many_steps_it_makes(cell, rows):
    unroll(cell)
    for get in (get_masks, get_thresholds, get_masked_weights, get_weights):
        assert len(get()) == 1
    assert get_masks()[0].shape.as_list() == [rows, 4 * UNITS]
    assert get_masked_weights()[0].op.name.endswith("weights/masked_weight")


def test_names_of_scopes_and_variables():
    unroll(MaskedLSTMCell(UNITS, use_peepholes=True, num_proj=2))
    unroll(MaskedBasicLSTMCell(UNITS))
    unroll(MaskedBasicLSTMCell(UNITS))
    names = [v.op.name for v in v1.global_variables()]
    lstm = [
        *("kernel", "bias", "w_f_diag", "w_i_diag", "w_o_diag", "projection/kernel"),
        *("mask", "threshold"),
    ]
    assert names[:8] == [f"masked_lstm_cell/{name}" for name in lstm]
    assert names[8:12] == [f"masked_basic_lstm_cell/{name}" for name in (*lstm[:2], *lstm[6:])]
    assert names[12] == "masked_basic_lstm_cell_1/kernel"


def test_only_what_the_mask_lets_through_counts(start):
    outputs, _ = unroll(MaskedBasicLSTMCell(UNITS))
    op = Pruning(None, v1.train.get_or_create_global_step(), 0.9).mask_update_op()
    [kernel] = get_weights()
    gradient = v1.gradients(outputs[-1], [kernel])[0]
    prune_by_hand = kernel.assign(kernel * get_masks()[0])
    session = start()
    whole = session.run(outputs)
    session.run(op)
    pruned, mask, gradient = session.run([outputs, get_masks()[0], gradient])
    assert mask.sum() == round(mask.size * 0.1)
    assert not np.allclose(whole, pruned, atol=1e-3)
    assert not gradient[mask == 0].any()
    assert gradient[mask == 1].any()
    session.run(prune_by_hand)
    np.testing.assert_allclose(session.run(outputs), pruned)


def test_static_and_dynamic_unrolling_make_the_same_steps(start):
    cell = MaskedLSTMCell(UNITS, use_peepholes=True, num_proj=2)
    dynamic, state = v1.nn.dynamic_rnn(cell, tf.constant(SEQUENCE), dtype=tf.float32)
    static, static_state = v1.nn.static_rnn(
        cell, [tf.constant(each) for each in STEPS], dtype=tf.float32
    )
    by_hand, last = unroll(cell)
    assert len(get_masks()) == 1
    [kernel] = get_weights()
    gradients = [v1.gradients(each, [kernel])[0] for each in (dynamic, static)]
    op = Pruning(None, v1.train.get_or_create_global_step(), 0.5).mask_update_op()
    session = start()
    session.run(op)
    values = session.run([dynamic, static, by_hand])
    np.testing.assert_allclose(np.moveaxis(values[0], 1, 0), values[2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values[1], values[2], rtol=1e-5, atol=1e-6)
    states = session.run([state, static_state, last])
    assert all(isinstance(each, LSTMStateTuple) for each in states)
    np.testing.assert_allclose(states[0].c, states[2].c, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(*session.run(gradients), rtol=1e-4, atol=1e-6)


def test_sizes_and_zero_states(start):
    cell = MaskedLSTMCell(UNITS, num_proj=2)
    assert cell.output_size == 2
    assert cell.state_size == LSTMStateTuple(UNITS, 2)
    joined = MaskedLSTMCell(UNITS, num_proj=2, state_is_tuple=False)
    assert joined.state_size == UNITS + 2
    zeros, flat = start().run([cell.zero_state(3, tf.float64), joined.zero_state(3, tf.float32)])
    assert (zeros.c.shape, zeros.h.shape, zeros.c.dtype) == ((3, UNITS), (3, 2), np.float64)
    assert (flat.shape, flat.any()) == ((3, UNITS + 2), False)


def test_variables_are_known_after_the_first_step():
    cell = MaskedLSTMCell(UNITS, initializer=v1.ones_initializer(), activation="sigmoid")
    assert cell.variables == []
    unroll(cell)
    assert [v.op.name for v in cell.trainable_variables] == [
        "masked_lstm_cell/kernel",
        "masked_lstm_cell/bias",
    ]


def test_two_cells_may_share_variables(start):
    first, _ = unroll(MaskedBasicLSTMCell(UNITS, name="cell"))
    second, _ = unroll(MaskedBasicLSTMCell(UNITS, name="cell", reuse=True))
    assert len(get_masks()) == 1
    one, other = start().run([first, second])
    np.testing.assert_allclose(one, other)


@pytest.mark.parametrize("shapes_of", ["v1", "v2"])
def test_the_inputs_depth_has_to_be_known(shapes_of, request):
    if shapes_of == "v1":
        v1.disable_v2_tensorshape()
        request.addfinalizer(v1.enable_v2_tensorshape)
    cell = MaskedBasicLSTMCell(UNITS)
    inputs = v1.placeholder(tf.float32, [BATCH, None])
    with pytest.raises(ValueError, match="last dimension has to be known"):
        cell(inputs, cell.zero_state(BATCH, tf.float32))
