"""Masks on Keras 3 models: forward pass, gradients, pruning, stripping, and the models' state."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.model_pruning import (
    Pruning,
    get_masked_weights,
    get_masks,
    get_pruning_hparams,
    get_weight_sparsity,
    get_weights,
    graph_def_from_checkpoint,
    mask_keras_model,
    strip_pruning_vars_fn,
)
from paramserve.model.keras_updates import collect_updates, trainable_values

v1 = tf.compat.v1
layers = keras.layers

pytestmark = pytest.mark.usefixtures("graph")

ROWS = np.random.default_rng(6).normal(size=[32, 6]).astype(np.float32)
IMAGES = np.random.default_rng(7).normal(size=[4, 8, 8, 3]).astype(np.float32)


class Subclassed(keras.Model):
    """Built in its first call."""

    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(8, activation="relu")
        self.normalize = layers.BatchNormalization(momentum=0.5)
        self.drop = layers.Dropout(0.5)
        self.last = layers.Dense(1)

    def call(self, inputs, training=False):
        hidden = self.normalize(self.hidden(inputs), training=training)
        return self.last(self.drop(hidden, training=training))


def sequential():
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(1)]
    )


def unbuilt_sequential():
    return keras.Sequential([layers.Dense(8, activation="relu"), layers.Dense(1)])


def functional():
    inputs = keras.Input((6,))
    hidden = layers.Dense(8, activation="relu")(inputs)
    nested = keras.Sequential([layers.Dense(4), layers.Dense(8)])
    return keras.Model(inputs, layers.Dense(1)(hidden + nested(hidden)))


MODELS = [sequential, unbuilt_sequential, functional, Subclassed]


def prune_op(sparsity):
    return Pruning(None, v1.train.get_or_create_global_step(), sparsity).mask_update_op()


@pytest.mark.parametrize("make_model", MODELS)
def test_the_forward_pass_uses_mask_times_kernel(start, make_model):
    model = make_model()
    mask_keras_model(model)
    outputs = model(ROWS)
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    assert {id(v.value) for v in kernels} == {id(weight) for weight in get_weights()}
    op, sparsities = prune_op(0.75), get_weight_sparsity()
    products = [
        weight.assign(mask * weight)
        for weight, mask in zip(get_weights(), get_masks(), strict=True)
    ]
    session = start()
    whole = session.run(outputs)
    session.run(op)
    assert session.run(sparsities) == [0.75] * len(kernels)
    pruned = session.run(outputs)
    assert np.abs(whole - pruned).max() > 0.1
    session.run(products)  # Now the kernels are zero themselves, where the masks are.
    np.testing.assert_allclose(session.run(outputs), pruned, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make_model", MODELS)
def test_pruned_weights_are_not_trained(start, make_model):
    model = make_model()
    mask_keras_model(model)
    loss = tf.reduce_mean((model(ROWS) - ROWS[:, :1]) ** 2)
    op = prune_op(0.5)
    optimizer = v1.train.GradientDescentOptimizer(0.1)
    train = optimizer.minimize(loss, var_list=trainable_values(model))
    weights = [tf.identity(weight) for weight in get_weights()]
    masks = [tf.identity(mask) for mask in get_masks()]
    session = start()
    session.run(op)
    before, masks, first_loss = session.run([weights, masks, loss])
    for _ in range(20):
        session.run(train)
    after, last_loss = session.run([weights, loss])
    assert last_loss < 0.9 * first_loss
    for old, new, mask in zip(before, after, masks, strict=True):
        assert np.array_equal(old[mask == 0], new[mask == 0])
        assert not np.allclose(old[mask == 1], new[mask == 1])


def test_names_masks_after_the_variables():
    mask_keras_model(keras.Sequential([keras.Input((6,)), layers.Dense(8, name="first")], name="m"))
    assert [weight.op.name for weight in get_weights()] == ["m/first/kernel"]
    assert [mask.op.name for mask in get_masks()] == ["m/first/kernel/mask"]
    assert get_masked_weights()[0].op.name.endswith("weights/masked_weight")


def test_sparsities_by_name(start):
    model = sequential()
    mask_keras_model(model)
    model(ROWS)
    names = [weight.op.name for weight in get_weights()]
    spec = get_pruning_hparams().parse(f"weight_sparsity_map=[{names[0]}:0.75]")
    spec.sparsity_function_end_step = 1
    step = v1.train.get_or_create_global_step()
    op, sparsities = Pruning(spec, step).mask_update_op(), get_weight_sparsity()
    session = start()
    step.load(1, session)
    session.run(op)
    assert session.run(sparsities) == [0.75, 0.5]


def test_masks_are_made_once_however_often_a_model_is_called_or_masked():
    model = functional()
    mask_keras_model(model)
    mask_keras_model(model)
    outputs = [model(ROWS), model(ROWS), model.layers[1](ROWS)]
    assert outputs
    assert len(get_masks()) == 4


@pytest.mark.parametrize(
    ("layer", "inputs", "count"),
    [
        (lambda: layers.Conv2D(4, 3), IMAGES, 1),
        (lambda: layers.SeparableConv2D(4, 3), IMAGES, 2),
        (lambda: layers.DepthwiseConv2D(3), IMAGES, 1),
        (lambda: layers.EinsumDense("ab,bc->ac", 4), ROWS, 1),
        (lambda: layers.LSTM(4), IMAGES[..., 0], 2),
        (lambda: layers.Bidirectional(layers.GRU(4)), IMAGES[..., 0], 4),
        (lambda: layers.RNN([layers.LSTMCell(4), layers.LSTMCell(3)]), IMAGES[..., 0], 4),
        (lambda: layers.TimeDistributed(layers.Dense(4)), IMAGES[..., 0], 1),
        (lambda: layers.MultiHeadAttention(2, 4), IMAGES[..., 0], 4),
    ],
)
def test_other_layers(start, layer, inputs, count):
    layer = layer()
    mask_keras_model(layer)
    arguments = [inputs] * (2 if isinstance(layer, layers.MultiHeadAttention) else 1)
    outputs = layer(*arguments)
    assert len(get_masks()) == count
    gradients = v1.gradients(outputs, get_weights())
    op = prune_op(0.5)
    masks = [tf.identity(mask) for mask in get_masks()]
    products = [
        weight.assign(mask * weight)
        for weight, mask in zip(get_weights(), get_masks(), strict=True)
    ]
    session = start()
    whole = session.run(outputs)
    session.run(op)
    pruned, gradients, masks = session.run([outputs, gradients, masks])
    assert not np.allclose(whole, pruned, atol=1e-4)
    for gradient, mask in zip(gradients, masks, strict=True):
        assert not gradient[mask == 0].any()
        assert gradient[mask == 1].any()
    session.run(products)
    np.testing.assert_allclose(session.run(outputs), pruned, rtol=1e-4, atol=1e-5)


def test_weights_may_be_chosen(start):
    model = keras.Sequential([layers.Embedding(10, 4), layers.Dense(3)])
    mask_keras_model(model, select=lambda variable: variable.name == "embeddings")
    outputs = model(np.array([[1, 2]]))
    assert [mask.shape.as_list() for mask in get_masks()] == [[10, 4]]
    bias = tf.identity(model.layers[1].bias.value)
    session = start()
    session.run(get_masks()[0].assign(tf.zeros([10, 4])))
    values, bias = session.run([outputs, bias])
    assert np.array_equal(values, np.broadcast_to(bias, values.shape))


def test_mixed_precision_masks_the_float32_kernel(start):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3, dtype="mixed_float16")])
    unbuilt = layers.Dense(3, dtype="mixed_float16")
    mask_keras_model(model)
    mask_keras_model(unbuilt)
    outputs = [model(ROWS), unbuilt(ROWS)]
    assert [mask.dtype for mask in get_masks()] == [tf.float32] * 2
    zero = [mask.assign(tf.zeros(mask.shape)) for mask in get_masks()]
    session = start()
    session.run(zero)
    for value in session.run(outputs):
        assert value.dtype == np.float16
        assert not value.any()


def test_moving_averages_and_dropout_still_move(start):
    model = Subclassed()
    mask_keras_model(model)
    outputs = model(ROWS, training=True)
    updates = collect_updates(model)
    mean = tf.identity(model.normalize.moving_mean.value)
    session = start()
    assert not session.run(mean).any()
    session.run([outputs, updates])
    first = session.run(mean)
    assert first.any()
    one, _ = session.run([outputs, updates])
    two, _ = session.run([outputs, updates])
    assert not np.array_equal(one, two)


class Counting(layers.Layer):
    """A layer with a kernel, and state that its calls assign."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 2), name="kernel")
        self.calls = self.add_weight(shape=(), name="calls", trainable=False, initializer="zeros")

    def call(self, inputs):
        self.calls.assign(self.calls + 1)
        return inputs @ self.kernel * self.calls


def test_what_a_masked_layer_assigns_is_kept(start):
    model = keras.Sequential([keras.Input((6,)), Counting()])
    mask_keras_model(model)
    outputs = model(ROWS)
    updates = collect_updates(model)
    assert len(updates) == 1
    calls = tf.identity(model.layers[0].calls.value)
    session = start()
    for _ in range(3):
        session.run([outputs, updates])
    assert session.run(calls) == 3


def test_frozen_layers_have_no_masks():
    model = sequential()
    model.layers[0].trainable = False
    mask_keras_model(model)
    model(ROWS)
    assert [mask.shape.as_list() for mask in get_masks()] == [[8, 1]]


@pytest.mark.parametrize("make_model", [sequential, Subclassed, lambda: layers.LSTM(4)])
def test_the_stripped_graph_computes_the_same(start, make_model, tmp_path):
    shape = [None, 6] if make_model in (sequential, Subclassed) else [4, 8, 8]
    inputs = v1.placeholder(tf.float32, shape, "inputs")
    feed = ROWS if len(shape) == 2 else IMAGES[..., 0]
    model = make_model()
    mask_keras_model(model)
    outputs = tf.identity(model(inputs), name="outputs")
    op, saver = prune_op(0.75), v1.train.Saver()
    session = start()
    session.run(op)
    saver.save(session, str(tmp_path / "model"))
    expected = session.run(outputs, {inputs: feed})
    frozen = graph_def_from_checkpoint(str(tmp_path), ["outputs"])
    stripped = strip_pruning_vars_fn(frozen, ["outputs"])
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as other:
        tf.import_graph_def(stripped, name="")
        values = other.run("outputs:0", {"inputs:0": feed})
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    assert not [node for node in stripped.node if node.name.endswith("/mask")]
    products = [node for node in stripped.node if node.name.endswith("masked_weight")]
    products = [tf.make_ndarray(node.attr["value"].tensor) for node in products]
    assert {(product == 0).mean() for product in products} == {0.75}
