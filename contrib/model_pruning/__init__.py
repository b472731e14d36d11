"""`tf.contrib.model_pruning`, which TensorFlow 2 removed: masks for weights, and their training."""

from .hparams import get_pruning_hparams
from .keras_masks import mask_keras_model
from .layers import masked_conv2d, masked_convolution, masked_fully_connected
from .learning import train
from .masks import (
    apply_mask,
    get_masked_weights,
    get_masks,
    get_thresholds,
    get_weight_sparsity,
    get_weights,
)
from .pruning import Pruning
from .rnn_cells import LSTMStateTuple, MaskedBasicLSTMCell, MaskedLSTMCell
from .stripping import graph_def_from_checkpoint, strip_pruning_vars_fn

__all__ = [
    "LSTMStateTuple",
    "MaskedBasicLSTMCell",
    "MaskedLSTMCell",
    "Pruning",
    "apply_mask",
    "get_masked_weights",
    "get_masks",
    "get_pruning_hparams",
    "get_thresholds",
    "get_weight_sparsity",
    "get_weights",
    "graph_def_from_checkpoint",
    "mask_keras_model",
    "masked_conv2d",
    "masked_convolution",
    "masked_fully_connected",
    "strip_pruning_vars_fn",
    "train",
]
