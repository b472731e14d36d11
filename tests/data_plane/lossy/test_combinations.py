"""Options that make no sense together, or not in every session, are refused by name."""

import functools

import pytest
import tensorflow as tf

from paramserve.data_plane.lossy.passes import check_without_hooks, transfer_hooks
from paramserve.data_plane.options import DataPlane, check_combination
from paramserve.data_plane.prepare import prepare
from paramserve.errors import UsageError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stale_pull": True}, r"stale_pull=True and sync .* use --async, or leave stale_pull out"),
        ({"local_steps": 4}, "local_steps=4 and sync training"),
        ({"max_staleness": 0}, "max_staleness=0 and sync training"),
        ({"top_k": 0.1}, "top_k=0.1 and sync training"),
    ],
)
def test_sync_training_has_none_of_what_makes_workers_drift(options, message):
    with pytest.raises(UsageError, match=message):
        check_combination(DataPlane(**options), sync=True)
    check_combination(DataPlane(**options), sync=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stale_pull": True}, "local_steps=4 and stale_pull=True .* leave one of them out"),
        ({"top_k": 0.1}, "local_steps=4 and top_k=0.1 .* leave one of them out"),
    ],
)
def test_local_steps_leave_nothing_for_some_options_to_do(options, message):
    with pytest.raises(UsageError, match=message):
        check_combination(DataPlane(local_steps=4, **options), sync=False)


def test_everything_else_goes_together():
    check_combination(DataPlane(wire_dtype="bfloat16"), sync=True)
    check_combination(DataPlane(), sync=True)
    options = {"wire_dtype": "bfloat16", "max_staleness": 3}
    check_combination(DataPlane(**options, local_steps=4), sync=False)
    check_combination(DataPlane(**options, stale_pull=True, top_k=0.1), sync=False)


@pytest.mark.parametrize("options", [{"local_steps": 2}, {"max_staleness": 1}])
def test_a_session_without_hooks_is_no_place_for_what_needs_them(options):
    with pytest.raises(UsageError, match="needs a session with hooks: use a MonitoredTraining"):
        check_without_hooks(DataPlane(**options))
    check_without_hooks(DataPlane(wire_dtype="bfloat16", stale_pull=True, top_k=0.1))


def test_the_exact_data_plane_needs_no_hooks():
    assert transfer_hooks(DataPlane(wire_dtype="bfloat16")) == []


@pytest.mark.parametrize(
    "options",
    [
        {"wire_dtype": "bfloat16", "stale_pull": True, "top_k": 0.5, "max_staleness": 2},
        {"wire_dtype": "bfloat16", "local_steps": 3, "max_staleness": 2},
        {"storage": "flat", "wire_dtype": "bfloat16", "stale_pull": True, "top_k": 0.5},
        {"storage": "flat", "local_steps": 3},
    ],
)
def test_together_they_still_learn(open_worker, regression, options):
    # Late and partial gradients leave less room for the learning rate.
    optimizer = functools.partial(tf.compat.v1.train.GradientDescentOptimizer, 0.03)
    with open_worker(regression(optimizer), **options) as worker:
        losses = [worker.step("loss") for _ in range(150)]
        assert losses[-1] < 0.1 * losses[0]


def test_in_the_library_too_a_sync_optimizer_is_noticed():
    with tf.Graph().as_default() as graph:
        weights = tf.compat.v1.get_variable("w", [3])
        optimizer = tf.compat.v1.train.SyncReplicasOptimizer(
            tf.compat.v1.train.GradientDescentOptimizer(0.1), 1
        )
        step = tf.compat.v1.train.get_or_create_global_step()
        train_op = optimizer.minimize(tf.reduce_sum(weights**2), step)
        with pytest.raises(UsageError, match="stale_pull=True and sync training"):
            prepare(graph, DataPlane(stale_pull=True), [train_op])
        prepare(graph, DataPlane(wire_dtype="bfloat16"), [train_op])
