"""Masked layers: variables, collections, outputs, and refusals."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.model_pruning import (
    Pruning,
    get_masked_weights,
    get_masks,
    get_thresholds,
    get_weight_sparsity,
    get_weights,
    masked_conv2d,
    masked_convolution,
    masked_fully_connected,
)

v1 = tf.compat.v1

pytestmark = pytest.mark.usefixtures("graph")

random = np.random.default_rng(4)
IMAGES = random.normal(size=[2, 9, 7, 3]).astype(np.float32)
ROWS = random.normal(size=[5, 6]).astype(np.float32)
linear = {"activation_fn": None}


def names(variables):
    return [variable.op.name for variable in variables]


# Variables and collections


@pytest.mark.usefixtures("use_resource")
def test_convolutions_have_kernel_mask_threshold_and_biases():
    masked_convolution(masked_convolution(IMAGES, 4, 3), 5, [2, 1])
    first = ["Conv/weights", "Conv/mask", "Conv/threshold", "Conv/biases"]
    assert names(v1.global_variables()) == first + [n.replace("Conv", "Conv_1") for n in first]
    assert names(v1.model_variables()) == names(v1.global_variables())
    assert names(v1.trainable_variables()) == [
        name for name in names(v1.global_variables()) if name.endswith(("weights", "biases"))
    ]
    assert [mask.shape.as_list() for mask in get_masks()] == [[3, 3, 3, 4], [2, 1, 4, 5]]


def test_fully_connected_layers_have_kernel_mask_threshold_and_biases():
    masked_fully_connected(masked_fully_connected(ROWS, 4), 5)
    first = [f"fully_connected/{name}" for name in ("weights", "mask", "threshold", "biases")]
    assert names(v1.global_variables())[:4] == first
    assert [mask.shape.as_list() for mask in get_masks()] == [[6, 4], [4, 5]]
    assert names(get_masks()) == ["fully_connected/mask", "fully_connected_1/mask"]


@pytest.mark.parametrize(
    ("layer", "inputs", "options"),
    [(masked_conv2d, IMAGES, {"kernel_size": 3}), (masked_fully_connected, ROWS, {})],
)
def test_each_call_adds_one_entry_to_each_collection(layer, inputs, options):
    for count in (1, 2, 3):
        layer(inputs, 4, **options)
        for get in (get_masks, get_thresholds, get_masked_weights, get_weights):
            assert len(get()) == count
    assert all(each.op.name.endswith("weights/masked_weight") for each in get_masked_weights())


def test_conv2d_is_convolution():
    assert masked_conv2d is masked_convolution


def test_scope_and_reuse_share_variables_and_masks(start):
    outputs = [
        masked_fully_connected(ROWS, 4, scope="layer", reuse=reuse) for reuse in (None, True)
    ]
    assert len(get_masks()) == 1
    assert names(v1.trainable_variables()) == ["layer/weights", "layer/biases"]
    first, second = start().run(outputs)
    assert np.array_equal(first, second)


def test_collections_of_variables_and_outputs():
    output = masked_fully_connected(
        ROWS, 4, variables_collections=["mine"], outputs_collections="outputs"
    )
    masked_conv2d(
        IMAGES, 4, 3, variables_collections={"biases": ["b"]}, outputs_collections=["outputs", "o"]
    )
    assert names(v1.get_collection("mine")) == ["fully_connected/weights", "fully_connected/biases"]
    assert names(v1.get_collection("b")) == ["Conv/biases"]
    assert v1.get_collection("outputs")[0] is output
    assert len(v1.get_collection("outputs")) == 2
    assert len(v1.get_collection("o")) == 1


def test_untrainable_layers_and_layers_without_biases():
    masked_fully_connected(ROWS, 4, trainable=False, scope="fixed")
    masked_conv2d(IMAGES, 4, 3, biases_initializer=None, scope="bare")
    assert names(v1.trainable_variables()) == ["bare/weights"]
    assert not [name for name in names(v1.global_variables()) if name == "bare/biases"]


def test_regularizers_get_kernel_and_biases(start):
    masked_fully_connected(
        ROWS,
        2,
        weights_initializer=v1.constant_initializer(2.0),
        weights_regularizer=tf.reduce_sum,
        biases_initializer=v1.ones_initializer(),
        biases_regularizer=lambda biases: tf.reduce_sum(biases) * 100,
    )
    losses = v1.get_collection(v1.GraphKeys.REGULARIZATION_LOSSES)
    session = start()
    session.run(get_masks()[0].assign(tf.zeros([6, 2])))
    assert sorted(session.run(losses)) == [24.0, 200.0]  # 6 * 2 weights, although masked.


def test_a_normalizer_takes_the_place_of_biases(start):
    def center(outputs, scale):
        return scale * (outputs - tf.reduce_mean(outputs, 0))

    output = masked_fully_connected(
        ROWS, 4, activation_fn=None, normalizer_fn=center, normalizer_params={"scale": 2.0}
    )
    masked_conv2d(IMAGES, 4, 3, normalizer_fn=tf.identity)
    assert not [name for name in names(v1.global_variables()) if name.endswith("biases")]
    session = start()
    value, kernel = session.run([output, tf.identity(get_weights()[0])])
    product = ROWS @ kernel
    np.testing.assert_allclose(value, 2 * (product - product.mean(0)), rtol=1e-4, atol=1e-5)


# Outputs


@pytest.mark.usefixtures("use_resource")
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": [3, 2], "stride": 2, "padding": "VALID"},
        {"kernel_size": 3, "stride": [2, 1]},
        {"kernel_size": 3, "rate": 2},
        {"kernel_size": 2, "rate": [1, 2], "padding": "valid"},
    ],
)
def test_a_convolution_convolves_with_the_masked_kernel(start, options):
    random_start = v1.random_normal_initializer()
    output = masked_convolution(IMAGES, 4, biases_initializer=random_start, **options)
    [mask], [kernel] = get_masks(), get_weights()
    biases = v1.trainable_variables()[1]
    by_hand = tf.nn.relu(
        tf.nn.convolution(
            IMAGES,
            kernel * mask,
            strides=options.get("stride", 1),
            padding=options.get("padding", "SAME").upper(),
            dilations=options.get("rate", 1),
        )
        + biases
    )
    prune = Pruning(None, v1.train.get_or_create_global_step(), 0.5).mask_update_op()
    session = start()
    whole = session.run(output)
    session.run(prune)
    assert session.run(get_weight_sparsity()) == [0.5]
    pruned, expected = session.run([output, by_hand])
    np.testing.assert_allclose(pruned, expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(pruned, whole, atol=0.1)
    assert output.shape.as_list() == list(expected.shape)


@pytest.mark.parametrize("shape", [[5, 6], [2, 3, 6], [2, 2, 3, 6]])
def test_a_fully_connected_layer_multiplies_by_the_masked_matrix(start, shape):
    inputs = random.normal(size=shape).astype(np.float32)
    output = masked_fully_connected(inputs, np.int64(4), activation_fn=tf.tanh)
    session = start()
    mask = random.integers(0, 2, [6, 4])
    session.run(get_masks()[0].assign(mask))
    value, kernel = session.run([output, tf.identity(get_weights()[0])])
    np.testing.assert_allclose(value, np.tanh(inputs @ (mask * kernel)), rtol=1e-4, atol=1e-5)
    assert output.shape.as_list() == [*shape[:-1], 4]


def test_partitioned_layers_compute_the_same(start):
    partitioner = v1.fixed_size_partitioner(3)
    with v1.variable_scope("cut", partitioner=partitioner):
        output = masked_fully_connected(ROWS, 4, **linear)
    whole = tf.convert_to_tensor(get_weights()[0])
    session = start()
    value, kernel = session.run([output, whole])
    np.testing.assert_allclose(value, ROWS @ kernel, rtol=1e-4, atol=1e-5)
    assert [part.shape.as_list() for part in get_masks()[0]] == [[2, 4]] * 3


def test_channels_first():
    """Central processors cannot compute it; the shapes are seen when the graph is made."""
    images = v1.placeholder(tf.float32, [None, 3, 9, 7])
    output = masked_convolution(images, 4, [3, 2], stride=2, data_format="NCHW")
    assert output.shape.as_list() == [None, 4, 5, 4]
    assert get_masks()[0].shape.as_list() == [3, 2, 3, 4]


def test_unknown_batch_and_image_sizes(start):
    images = v1.placeholder(tf.float32, [None, None, None, 3])
    output = masked_conv2d(images, 4, 3)
    rows = v1.placeholder(tf.float32, [None, None, 6])
    connected = masked_fully_connected(rows, 4)
    assert connected.shape.as_list() == [None, None, 4]
    values = start().run([output, connected], {images: IMAGES, rows: ROWS[None]})
    assert [value.shape for value in values] == [(2, 9, 7, 4), (1, 5, 4)]


# Refusals


@pytest.mark.parametrize("rank", [0, 1, 2, 3, 5, 6])
def test_only_images_of_rank_4_are_convolved(rank):
    with pytest.raises(ValueError, match=f"rank {rank}"):
        masked_convolution(tf.ones([4] * rank), 4, 3)


def test_images_of_unknown_rank_are_refused():
    with pytest.raises(ValueError, match="rank None"):
        masked_convolution(v1.placeholder(tf.float32), 4, 3)


@pytest.mark.parametrize("data_format", ["NWC", "channels_last", "CHWN"])
def test_other_data_formats_are_refused(data_format):
    with pytest.raises(ValueError, match=f"data_format='{data_format}' should be 'NHWC', 'NCHW'"):
        masked_convolution(IMAGES, 4, 3, data_format=data_format)


@pytest.mark.parametrize(
    ("layer", "shape", "options", "message"),
    [
        (masked_conv2d, [2, 9, 7, None], {"kernel_size": 3}, "number of channels has to be known"),
        (
            masked_conv2d,
            [2, None, 9, 7],
            {"kernel_size": 3, "data_format": "NCHW"},
            "number of channels",
        ),
        (masked_fully_connected, [5, None], {}, "last dimension has to be known"),
        (masked_fully_connected, [5], {}, "rank 2 or more, not rank 1"),
        (masked_fully_connected, None, {}, "rank 2 or more, not rank None"),
    ],
)
@pytest.mark.parametrize("shapes_of", ["v1", "v2"])
def test_what_a_kernels_shape_needs_has_to_be_known(
    layer, shape, options, message, shapes_of, request
):
    if shapes_of == "v1":
        v1.disable_v2_tensorshape()
        request.addfinalizer(v1.enable_v2_tensorshape)
    inputs = v1.placeholder(tf.float32, shape)
    with pytest.raises(ValueError, match=message):
        layer(inputs, 4, **options)


@pytest.mark.parametrize("number", [4.0, "4", None])
def test_the_number_of_outputs_is_a_whole_number(number):
    with pytest.raises(ValueError, match=r"num_outputs=.* should be an integer"):
        masked_fully_connected(ROWS, number)
