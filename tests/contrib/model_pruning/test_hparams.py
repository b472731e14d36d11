"""Pruning's hyperparameters: defaults, ranges, and settings of single weights."""

import json
import logging
import re

import pytest
import tensorflow as tf

from paramserve.contrib.model_pruning import Pruning, apply_mask, get_pruning_hparams

v1 = tf.compat.v1

pytestmark = pytest.mark.usefixtures("graph")


@pytest.fixture
def step(graph):
    return v1.train.get_or_create_global_step()


def test_defaults_are_those_of_the_original_and_do_not_prune():
    assert get_pruning_hparams().values() == {
        "name": "model_pruning",
        "begin_pruning_step": 0,
        "end_pruning_step": -1,
        "weight_sparsity_map": [""],
        "block_dims_map": [""],
        "threshold_decay": 0.0,
        "pruning_frequency": 10,
        "nbins": 256,
        "block_height": 1,
        "block_width": 1,
        "block_pooling_function": "AVG",
        "initial_sparsity": 0.0,
        "target_sparsity": 0.5,
        "sparsity_function_begin_step": 0,
        "sparsity_function_end_step": 100,
        "sparsity_function_exponent": 3.0,
        "use_tpu": False,
        "do_not_prune": [""],
    }


def test_text_changes_them():
    spec = get_pruning_hparams().parse("target_sparsity=0.9,weight_sparsity_map=[a:0.8,b:0.7]")
    assert spec.target_sparsity == 0.9
    assert spec.weight_sparsity_map == ["a:0.8", "b:0.7"]


@pytest.mark.usefixtures("step")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("begin_pruning_step=-1", "begin_pruning_step=-1 must not be negative"),
        ("begin_pruning_step=5,end_pruning_step=5", "5 has to be smaller than end_pruning_step=5"),
        ("begin_pruning_step=5,end_pruning_step=-2", "use -1 for no end"),
        ("sparsity_function_begin_step=-3", "sparsity_function_begin_step=-3 must not be neg"),
        ("sparsity_function_begin_step=100", "smaller than sparsity_function_end_step=100"),
        ("threshold_decay=1.0", r"threshold_decay=1.0 has to be in range \[0, 1\)"),
        ("threshold_decay=-0.1", "threshold_decay=-0.1"),
        ("initial_sparsity=1.0", "initial_sparsity=1.0"),
        ("initial_sparsity=-0.5", "initial_sparsity=-0.5"),
        ("target_sparsity=1.0", "target_sparsity=1.0"),
        ("target_sparsity=-0.1", "target_sparsity=-0.1"),
        ("weight_sparsity_map=[conv1:1.0]", "weight_sparsity_map: 'conv1:1.0'.*not 1.0"),
        ("weight_sparsity_map=[conv1:x]", "weight_sparsity_map: 'conv1:x'"),
        ("weight_sparsity_map=[conv1]", "'conv1' should be 'name_regex:value'"),
        ("weight_sparsity_map=[(:0.5]", r"'\(:0.5'"),
        ("block_dims_map=[fc:3]", "Expected 2 values for block dim"),
        ("block_dims_map=[fc:3x3x3]", "Expected 2 values for block dim"),
        ("block_dims_map=[fc:0x3]", "a block of 0x3 weights is impossible"),
        ("block_height=0", "a block of 0x1 weights is impossible"),
    ],
)
def test_values_out_of_range_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Pruning(get_pruning_hparams().parse(text))


@pytest.mark.usefixtures("step")
def test_checks_come_in_order():
    """Each change mends what was complained of before."""
    bad = {
        "begin_pruning_step": (-1, 5),
        "end_pruning_step": (2, -1),
        "sparsity_function_begin_step": (-1, 5),
        "sparsity_function_end_step": (5, 6),
        "threshold_decay": (1.0, 0.0),
        "initial_sparsity": (1.0, 0.0),
        "target_sparsity": (1.0, 0.5),
        "weight_sparsity_map": (["a:1"], ["a:0.5"]),
        "block_dims_map": (["a:1"], ["a:1x1"]),
    }
    spec = get_pruning_hparams()
    for name, (value, _) in bad.items():
        setattr(spec, name, value)
    for name, (_, mended) in bad.items():
        with pytest.raises(ValueError, match=name):
            Pruning(spec)
        setattr(spec, name, mended)
    Pruning(spec)


def test_end_of_minus_one_is_no_end_after_any_beginning(step):
    Pruning(get_pruning_hparams().parse("begin_pruning_step=5"), step)


def test_without_a_global_step_the_error_says_what_to_do():
    with pytest.raises(ValueError, match="get_or_create_global_step"):
        Pruning()


def test_a_weight_may_match_one_entry_of_a_map_only(step):
    for setting in ("weight_sparsity_map=[conv:0.5,v1:0.6]", "block_dims_map=[conv:1x2,v1:2x1]"):
        with tf.Graph().as_default():
            apply_mask(v1.get_variable("conv1", [4, 4]))
            v1.train.get_or_create_global_step()
            pruning = Pruning(get_pruning_hparams().parse(setting))
            with pytest.raises(ValueError, match=r"'conv1' matches more than one .* 'conv', 'v1'"):
                pruning.mask_update_op()


def test_own_sparsity_needs_a_positive_target(step):
    apply_mask(v1.get_variable("conv1", [4, 4]))
    spec = get_pruning_hparams().parse("weight_sparsity_map=[conv1:0.5],target_sparsity=0.0")
    with pytest.raises(ValueError, match="make target_sparsity positive"):
        Pruning(spec, step).mask_update_op()


def test_regular_expressions_may_have_colons(step):
    Pruning(get_pruning_hparams().parse("weight_sparsity_map=[(?:a|b)/weights:0.5]"), step)


def test_print_hparams_logs_json(step, caplog):
    with caplog.at_level(logging.INFO):
        Pruning(get_pruning_hparams().parse("target_sparsity=0.75"), step).print_hparams()
    logged = json.loads(re.search(r"\{.*\}", caplog.text, re.S)[0])
    assert logged == get_pruning_hparams().parse("target_sparsity=0.75").values()
