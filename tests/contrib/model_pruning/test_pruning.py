"""The times of mask updates: the schedule, conditions, and the state in checkpoints."""

import threading

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.model_pruning import (
    Pruning,
    apply_mask,
    get_masks,
    get_pruning_hparams,
    get_weight_sparsity,
)

v1 = tf.compat.v1

pytestmark = pytest.mark.usefixtures("use_resource")


@pytest.fixture
def step(graph):
    return v1.train.get_or_create_global_step()


@pytest.fixture
def weights(graph):
    values = np.arange(1.0, 101.0, dtype=np.float32)
    return v1.get_variable("weights", initializer=values, trainable=True)


@pytest.fixture
def count(step):
    return step.assign_add(1).op


def hparams(text):
    return get_pruning_hparams().parse(text)


# The schedule


def schedule(start, step, text, steps):
    sparsity = Pruning(hparams(text), step).sparsity()
    session = start()
    values = []
    for each in steps:
        step.load(each, session)
        values.append(session.run(sparsity))
    return values


def test_sparsity_rises_by_the_third_power(start, step):
    values = schedule(start, step, "sparsity_function_end_step=8", range(9))
    expected = [0, 0.165, 0.289, 0.378, 0.438, 0.474, 0.492, 0.499, 0.5]
    np.testing.assert_allclose(values, expected, atol=5e-4)


def test_sparsity_is_flat_outside_of_the_schedule_and_knows_no_frequency(start, step):
    text = (
        "sparsity_function_begin_step=10,sparsity_function_end_step=20,initial_sparsity=0.2,"
        "target_sparsity=0.6,sparsity_function_exponent=1,pruning_frequency=7"
    )
    values = schedule(start, step, text, [0, 10, 11, 15, 20, 1000])
    np.testing.assert_allclose(values, [0.2, 0.2, 0.24, 0.4, 0.6, 0.6], rtol=1e-5)


def test_sparsity_may_be_given(start, step, weights):
    apply_mask(weights)
    sparsity = v1.get_variable("sparsity", initializer=0.25, trainable=False)
    op = Pruning(None, step, sparsity).mask_update_op()
    change = sparsity.assign(0.75)
    session = start()
    session.run(op)
    assert session.run(get_masks()[0]).sum() == 75
    session.run(change)
    session.run(op)
    assert session.run(get_masks()[0]).sum() == 25


def test_step_may_be_a_tensor_or_the_graphs(start, step):
    given = Pruning(hparams("sparsity_function_end_step=8"), tf.constant(4)).sparsity()
    found = Pruning(hparams("sparsity_function_end_step=8")).sparsity()
    session = start()
    step.load(8, session)
    assert session.run([given, found]) == [0.4375, 0.5]


# The last update's step


def test_it_is_an_int32_variable_of_this_name_that_is_not_trained(start, step):
    last = Pruning(None, step).last_mask_update_step
    assert last.op.name == "model_pruning/last_mask_update_step"
    assert last.dtype.base_dtype == tf.int32
    assert not v1.trainable_variables()
    assert start().run(last) == 0


def test_a_second_pruning_of_the_same_name_shares_it(step):
    first, second = Pruning(None, step), Pruning(None, step)
    other = Pruning(hparams("name=other"), step)
    assert first.last_mask_update_step is second.last_mask_update_step
    assert other.last_mask_update_step.op.name == "other/last_mask_update_step"


# Unconditional updates


def test_mask_update_op_updates_at_any_step_and_notes_it(start, step, weights, graph):
    apply_mask(weights)
    text = "begin_pruning_step=50,sparsity_function_end_step=8,name=pruned"
    pruning = Pruning(hparams(text), step)
    op = pruning.mask_update_op()
    assert op.name == "pruned/mask_update"
    assert pruning.mask_update_op() is op
    session = start()
    for each, kept in ((0, 100), (4, 56), (8, 50), (9, 50)):
        step.load(each, session)
        session.run(op)
        assert session.run(get_masks()[0]).sum() == kept
        assert session.run(pruning.last_mask_update_step) == each


def test_weights_that_get_masks_later_are_not_updated(start, step, weights):
    apply_mask(weights, "first")
    pruning = Pruning(None, step, 0.5)
    op = pruning.mask_update_op()
    apply_mask(v1.get_variable("late", initializer=[1.0, 2.0]), "late")
    session = start()
    session.run([op, pruning.mask_update_op()])
    assert session.run(get_weight_sparsity()) == [0.5, 0.0]


def test_collections_of_different_lengths_are_refused(step, weights):
    apply_mask(weights)
    v1.add_to_collection("masks", weights)
    for make in (
        Pruning(None, step).mask_update_op,
        Pruning(None, step).conditional_mask_update_op,
    ):
        with pytest.raises(ValueError, match="2 masks, 1 thresholds and 1 weights"):
            make()


def test_without_masks_there_is_nothing_to_update(start, step):
    pruning = Pruning(hparams("pruning_frequency=1"), step)
    ops = [pruning.mask_update_op(), pruning.conditional_mask_update_op()]
    start().run(ops)


# Conditional updates


def updated_at(session, op, count, last, steps):
    """Returns the steps at which the last update's step changes."""
    steps_seen, before = [], session.run(last)
    for _ in range(steps):
        session.run(count)
        session.run(op)
        now = session.run(last)
        steps_seen += [] if now == before else [int(now)]
        before = now
    return steps_seen


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pruning_frequency=2,begin_pruning_step=1,end_pruning_step=6", [2, 4, 6]),
        ("pruning_frequency=3", [3, 6, 9]),
        ("pruning_frequency=3,begin_pruning_step=5", [5, 8]),
        ("pruning_frequency=4,begin_pruning_step=1,end_pruning_step=7", [4]),
        ("pruning_frequency=1,begin_pruning_step=3,end_pruning_step=5", [3, 4, 5]),
    ],
)
def test_updates_come_in_their_range_at_their_frequency(
    start, step, weights, count, text, expected
):
    apply_mask(weights)
    pruning = Pruning(hparams(text), step)
    op = pruning.conditional_mask_update_op()
    session = start()
    assert updated_at(session, op, count, pruning.last_mask_update_step, 10) == expected


def test_masks_change_at_steps_2_4_and_6_only(start, step, weights, count):
    apply_mask(weights)
    text = (
        "pruning_frequency=2,begin_pruning_step=1,end_pruning_step=6,target_sparsity=0.9,"
        "sparsity_function_end_step=10,sparsity_function_exponent=1"
    )
    op = Pruning(hparams(text), step).conditional_mask_update_op()
    session = start()
    kept = []
    for _ in range(8):
        session.run(count)
        session.run(op)
        kept.append(int(session.run(get_masks()[0]).sum()))
    assert kept == [100, 82, 82, 64, 64, 46, 46, 46]


def test_an_unconditional_op_made_before_does_not_make_it_unconditional(
    start, step, weights, count
):
    apply_mask(weights)
    pruning = Pruning(hparams("pruning_frequency=4"), step, 0.5)
    always = pruning.mask_update_op()
    op = pruning.conditional_mask_update_op()
    assert op is not always
    assert pruning.conditional_mask_update_op() is op
    session = start()
    assert updated_at(session, op, count, pruning.last_mask_update_step, 9) == [4, 8]
    session.run(always)
    assert session.run(pruning.last_mask_update_step) == 9


def test_what_waits_for_it_runs_in_every_step(start, step, weights, count):
    apply_mask(weights)
    pruning = Pruning(hparams("pruning_frequency=2"), step)
    with tf.control_dependencies([pruning.conditional_mask_update_op()]):
        after = tf.constant(7.0) * tf.reduce_sum(weights)
    session = start()
    for _ in range(3):
        session.run(count)
        assert session.run(after) == 7 * 5050


def test_in_one_run_with_the_training_op_it_sees_the_step_and_weights_after_it(
    start, step, weights, count
):
    apply_mask(weights)
    pruning = Pruning(hparams("pruning_frequency=2"), step, 0.5)
    with tf.control_dependencies([count]):
        reverse = weights.assign(tf.reverse(weights, [0]))
    with tf.control_dependencies([reverse]):
        op = pruning.conditional_mask_update_op()
    session = start()
    session.run(op)
    assert session.run(pruning.last_mask_update_step) == 0
    session.run(op)
    assert session.run(pruning.last_mask_update_step) == 2
    # Reversed twice: the large ones are at the end again.
    assert session.run(get_masks()[0]).tolist() == [0.0] * 50 + [1.0] * 50
    session.run(op)
    session.run(op)
    assert session.run(pruning.last_mask_update_step) == 4


# Summaries and checkpoints


def test_summaries_show_schedule_masks_and_thresholds(start, step, weights):
    apply_mask(weights, "layer")
    pruning = Pruning(hparams("name=pruned"), step, 0.5)
    pruning.add_pruning_summaries()
    op, merged = pruning.mask_update_op(), v1.summary.merge_all()
    session = start()
    step.load(3, session)
    session.run(op)
    summary = v1.Summary.FromString(session.run(merged))
    assert {value.tag: value.simple_value for value in summary.value} == {
        "pruned_summaries/sparsity": 0.5,
        "pruned_summaries/last_mask_update_step": 3.0,
        "pruned_summaries/layer/mask/sparsity": 0.5,
        "pruned_summaries/layer/threshold/threshold": 51.0,
    }


def test_a_checkpoint_has_masks_thresholds_and_the_last_step(start, step, weights, tmp_path):
    apply_mask(weights, "layer")
    op = Pruning(None, step, 0.5).mask_update_op()
    saver = v1.train.Saver()
    session = start()
    step.load(3, session)
    session.run(op)
    reader = tf.train.load_checkpoint(saver.save(session, str(tmp_path / "model")))
    assert reader.get_tensor("layer/mask").sum() == 50
    assert reader.get_tensor("layer/threshold") == 51.0
    assert reader.get_tensor("model_pruning/last_mask_update_step") == 3


def test_ops_are_made_in_the_graph_of_the_masks_from_anywhere(graph):
    apply_mask(v1.get_variable("weights", [4]))
    v1.train.get_or_create_global_step()
    pruning = Pruning()
    made = []

    def make():
        made.extend([pruning.mask_update_op(), pruning.conditional_mask_update_op()])
        made.append(pruning.sparsity())

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert [each.graph for each in made] == [graph] * 3


def test_that_there_is_no_mask_is_said(step, caplog):
    Pruning(get_pruning_hparams(), step).mask_update_op()
    assert "There is no mask in the graph" in caplog.text
