"""Outside of a graph, where nothing of this works, the errors say so."""

import keras
import pytest
import tensorflow as tf

from paramserve.contrib.model_pruning import (
    Pruning,
    apply_mask,
    mask_keras_model,
    masked_conv2d,
    masked_fully_connected,
)


@pytest.mark.parametrize(
    "make",
    [
        lambda: apply_mask(tf.ones([2])),
        lambda: mask_keras_model(keras.layers.Dense(2)),
        lambda: masked_fully_connected(tf.ones([2, 2]), 3),
        lambda: masked_conv2d(tf.ones([2, 2, 2, 2]), 3, 1),
    ],
)
def test_masks_need_a_graph(make):
    with pytest.raises(ValueError, match="need a graph: build inside"):
        make()


def test_pruning_needs_a_graph():
    with pytest.raises(ValueError, match="global step"):
        Pruning()
