"""`create_train_op`: the contents and order of one step, and its use in `train`."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.training import (
    clip_gradient_norms_fn,
    create_train_op,
    multiply_gradients,
    train,
)

v1 = tf.compat.v1
SGD = v1.train.GradientDescentOptimizer

LABELS = np.random.default_rng(1).integers(0, 2, 16)
# Feature 2 * label, or the one after it, is set: either tells the label.
FEATURES = np.eye(4, dtype=np.float32)[2 * LABELS + np.random.default_rng(2).integers(0, 2, 16)]

both_kinds = pytest.mark.parametrize("use_resource", [True, False], ids=["resource", "ref"])


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        v1.set_random_seed(7)
        yield graph


def logistic_loss(normalize=lambda layer: layer):
    kernel = v1.get_variable("kernel", [4, 1], initializer=v1.glorot_uniform_initializer())
    logits = normalize(FEATURES @ kernel) + v1.get_variable("bias", initializer=[0.0])
    labels = LABELS[:, None].astype(np.float32)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))


def batch_norm(layer):
    mean, variance = tf.nn.moments(layer, 0)
    for name, value, start in (("mean", mean, 0.0), ("variance", variance, 1.0)):
        average = v1.get_variable(name, initializer=[start], trainable=False)
        v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, average.assign_sub(0.1 * (average - value)))
    gamma = v1.get_variable("gamma", initializer=[1.0])
    return gamma * (layer - mean) * tf.math.rsqrt(variance + 1e-3)


def train_in_memory(train_op, steps):
    stop = v1.train.StopAtStepHook(num_steps=steps)
    return train(train_op, None, hooks=[stop], save_summaries_steps=None, save_checkpoint_secs=None)


@pytest.fixture
def session():
    with v1.Session() as session:
        yield session


def start(session):
    session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])


# It trains


@pytest.mark.original_api(
    "tf.contrib.training.train(train_op)", "tf.contrib.training.train returns"
)
def test_logistic_classifier_learns():
    train_op = create_train_op(logistic_loss(), SGD(1.0))
    assert train_in_memory(train_op, 1) > 0.5
    assert train_in_memory(train_op, 300) < 0.015


@pytest.mark.original_api(
    "tf.contrib.training.train(train_op)", "tf.contrib.training.train returns"
)
def test_batch_norm_classifier_learns():
    train_op = create_train_op(logistic_loss(batch_norm), SGD(1.0))
    assert train_in_memory(train_op, 300) < 0.1


@pytest.mark.original_api("tf.contrib.training.train(logdir)")
def test_training_a_subset_of_the_variables_leaves_the_others(tmp_path):
    loss = logistic_loss()
    kernel, _ = v1.trainable_variables()
    weights_only = create_train_op(loss, SGD(1.0), variables_to_train=[kernel])
    everything = create_train_op(loss, SGD(1.0))
    logdir = str(tmp_path)
    last = train(weights_only, logdir, hooks=[v1.train.StopAtStepHook(last_step=200)])
    assert 0.015 < last < 0.05
    assert tf.train.load_variable(logdir, "bias") == [0.0]
    assert train(everything, logdir, hooks=[v1.train.StopAtStepHook(last_step=600)]) < 0.015


@pytest.mark.parametrize(("multiplier", "learns"), [(1.0, False), (1000.0, True)])
def test_gradients_may_be_multiplied(multiplier, learns):
    loss = logistic_loss()
    factors = dict.fromkeys(v1.trainable_variables(), multiplier)
    train_op = create_train_op(
        loss, SGD(0.001), transform_grads_fn=lambda pairs: multiply_gradients(pairs, factors)
    )
    assert bool(train_in_memory(train_op, 10) < 0.5) is learns


def test_clipped_gradients_make_small_steps(session):
    weight = v1.get_variable("weight", initializer=[30.0, 40.0])
    loss = 0.5 * tf.reduce_sum(tf.square(weight))
    train_op = create_train_op(loss, SGD(1.0), transform_grads_fn=clip_gradient_norms_fn(5.0))
    start(session)
    session.run(train_op)
    assert session.run(weight) == pytest.approx([27.0, 36.0])


# One step


@both_kinds
def test_the_loss_is_the_one_before_the_step(session, use_resource):
    weight = v1.get_variable("weight", initializer=4.0, use_resource=use_resource)
    train_op = create_train_op(tf.square(weight), SGD(0.25))
    start(session)
    assert [session.run(train_op) for _ in range(3)] == [16.0, 4.0, 1.0]


def test_it_is_once_in_the_collection_of_train_ops():
    train_op = create_train_op(logistic_loss(), SGD(1.0))
    # The optimizer puts its own op there too.
    collected = v1.get_collection(v1.GraphKeys.TRAIN_OP)
    assert [op is train_op for op in collected].count(True) == 1


@both_kinds
def test_a_loss_that_is_no_number_fails_the_step_and_spares_the_variables(session, use_resource):
    weight = v1.get_variable("weight", initializer=1.0, use_resource=use_resource)
    factor = v1.placeholder(tf.float32, [])
    train_op = create_train_op(factor * weight, SGD(1.0))
    start(session)
    session.run(train_op, {factor: 0.25})
    for bad in (np.nan, np.inf):
        with pytest.raises(tf.errors.InvalidArgumentError, match="LossTensor is inf or nan"):
            session.run(train_op, {factor: bad})
    assert session.run(weight) == 0.75
    assert session.run(v1.train.get_global_step()) == 1


def test_numbers_may_go_unchecked(session):
    weight = v1.get_variable("weight", initializer=1.0)
    train_op = create_train_op(weight * np.nan, SGD(1.0), check_numerics=False)
    start(session)
    assert np.isnan(session.run(train_op))


# Its step counter


def test_the_graphs_global_step_counts_by_default(session):
    train_op = create_train_op(logistic_loss(), SGD(1.0))
    start(session)
    session.run([train_op])
    session.run([train_op])
    assert session.run(v1.train.get_global_step()) == 2


def test_none_counts_nothing(session):
    train_op = create_train_op(logistic_loss(), SGD(1.0), global_step=None)
    assert v1.train.get_global_step() is None
    counter = v1.train.create_global_step()
    start(session)
    session.run(train_op)
    assert session.run(counter) == 0


def test_another_counter_may_be_given(session):
    mine = v1.get_variable("mine", initializer=np.int64(40), trainable=False)
    train_op = create_train_op(logistic_loss(), SGD(1.0), mine)
    start(session)
    session.run(train_op)
    assert session.run(mine) == 41


# Its update ops


def moving_average_model():
    """Two averages in UPDATE_OPS; one step moves each by 1."""
    averages = [v1.get_variable(name, initializer=0.0, trainable=False) for name in ("a", "b")]
    for average in averages:
        v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, average.assign_add(1.0))
    return logistic_loss(), averages


def test_all_update_ops_run_by_default(session):
    loss, averages = moving_average_model()
    train_op = create_train_op(loss, SGD(1.0))
    start(session)
    session.run(train_op)
    assert session.run(averages) == [1.0, 1.0]


def test_given_update_ops_replace_them_with_a_warning(session, caplog):
    loss, averages = moving_average_model()
    other = v1.get_variable("other", initializer=0.0, trainable=False)
    left_out, kept = v1.get_collection(v1.GraphKeys.UPDATE_OPS)
    train_op = create_train_op(loss, SGD(1.0), update_ops=[kept, other.assign_add(1.0)])
    start(session)
    session.run(train_op)
    assert session.run([*averages, other]) == [0.0, 1.0, 1.0]
    assert left_out.name in caplog.text
    assert kept.name not in caplog.text


def test_no_update_ops_run_if_the_list_is_empty(session):
    loss, averages = moving_average_model()
    train_op = create_train_op(loss, SGD(1.0), update_ops=[])
    start(session)
    session.run(train_op)
    assert session.run(averages) == [0.0, 0.0]


# The variables that it trains


def test_variables_that_are_not_trainable_are_refused():
    loss = logistic_loss()
    frozen = v1.get_variable("frozen", initializer=1.0, trainable=False)
    with pytest.raises(AssertionError, match="frozen"):
        create_train_op(loss, SGD(1.0), variables_to_train=[frozen])


def test_a_variable_of_the_collection_counts_as_trainable(session):
    frozen = v1.get_variable("frozen", initializer=1.0, trainable=False)
    v1.add_to_collection(v1.GraphKeys.TRAINABLE_VARIABLES, frozen)
    train_op = create_train_op(tf.square(frozen), SGD(0.5), variables_to_train=[frozen])
    start(session)
    session.run(train_op)
    assert session.run(frozen) == 0.0


@pytest.mark.parametrize("variables", [None, []])
def test_without_variables_there_is_nothing_to_train(variables):
    with pytest.raises(AssertionError, match="no variables to train"):
        create_train_op(tf.constant(1.0), SGD(1.0), variables_to_train=variables)


def test_a_loss_that_depends_on_no_variable_is_refused():
    logistic_loss()
    with pytest.raises(ValueError, match="No gradients"):
        create_train_op(tf.constant(1.0), SGD(1.0))


# The gradients for the optimizer


class NotingOptimizer(SGD):
    def compute_gradients(self, *args, **kwargs):
        self.kwargs = kwargs
        return super().compute_gradients(*args, **kwargs)


def test_how_gradients_are_computed_is_the_optimizers_business():
    optimizer = NotingOptimizer(1.0)
    create_train_op(
        logistic_loss(),
        optimizer,
        gate_gradients=optimizer.GATE_GRAPH,
        aggregation_method=v1.AggregationMethod.EXPERIMENTAL_TREE,
        colocate_gradients_with_ops=True,
    )
    assert optimizer.kwargs == {
        "gate_gradients": optimizer.GATE_GRAPH,
        "aggregation_method": v1.AggregationMethod.EXPERIMENTAL_TREE,
        "colocate_gradients_with_ops": True,
    }


def test_a_synchronous_optimizer_runs_the_model_once_a_step():
    weight = v1.get_variable("weight", initializer=4.0)
    runs = v1.get_local_variable("runs", initializer=0.0)
    with tf.control_dependencies([runs.assign_add(1.0)]):
        loss = tf.square(weight)
    optimizer = v1.train.SyncReplicasOptimizer(SGD(0.25), 1)
    train_op = create_train_op(loss, optimizer)
    values = []

    class Note(v1.train.SessionRunHook):
        def before_run(self, run_context):
            return v1.train.SessionRunArgs(train_op)

        def after_run(self, run_context, run_values):
            values.append(run_values.results)

        def end(self, session):
            self.runs = session.run(runs)

    note = Note()
    stop = v1.train.StopAtStepHook(last_step=3)
    hooks = [optimizer.make_session_run_hook(is_chief=True), stop, note]
    train(train_op, None, hooks=hooks, save_summaries_steps=None, save_checkpoint_secs=None)
    # A step may be too late for the update under way; its gradient is then dropped.
    assert list(dict.fromkeys(values)) == [16.0, 4.0, 1.0]
    # Nothing but the steps ran it: not the chief's queue runner, nor its initialization.
    assert note.runs == len(values)


def test_gradients_are_summarized_as_they_are_applied(session):
    weight = v1.get_variable("weight", initializer=[30.0, 40.0])
    loss = 0.5 * tf.reduce_sum(tf.square(weight))
    create_train_op(
        loss, SGD(1.0), transform_grads_fn=clip_gradient_norms_fn(5.0), summarize_gradients=True
    )
    start(session)
    summary = v1.Summary.FromString(session.run(v1.summary.merge_all()))
    values = {value.tag: value for value in summary.value}
    assert values["summarize_grads/weight_gradient"].histo.max == pytest.approx(4.0)
    norm = values["summarize_grads/weight_gradient_norm"].simple_value
    assert norm == pytest.approx(5.0)


def test_gradients_are_not_summarized_unless_asked():
    create_train_op(logistic_loss(), SGD(1.0))
    assert v1.summary.merge_all() is None
