"""From a spec that names a loop to the loop: precedence of arguments, and refusals."""

import pytest
import tensorflow as tf

from paramserve.errors import JobFailed, UsageError
from paramserve.loops.loop import LoopContext
from paramserve.model.job_options import JobDefaults
from paramserve.model.spec import TrainSpec

v1 = tf.compat.v1


def build_with(loop, **loop_args):
    def build(task):
        loss = 1.0 * v1.get_variable("w", (), initializer=v1.zeros_initializer())
        made = {k: v() if callable(v) else v for k, v in loop_args.items()}
        optimizer = v1.train.GradientDescentOptimizer(1.0)
        return TrainSpec(loss=loss, optimizer=optimizer, loop=loop, loop_args=made)

    return build


@pytest.fixture
def services_of(build_graph):
    def services_of(loop, defaults=None, **loop_args):
        build = build_with(loop, **loop_args)
        return build_graph(build, defaults=defaults or JobDefaults()).loop.services

    return services_of


@pytest.mark.parametrize(
    ("loop", "argument", "more"),
    [
        ("training", "save_checkpoint_secs", {}),
        ("learn", "supervisor_save_model_secs", {}),
        ("model_pruning", "save_interval_secs", {"mask_update_op": tf.no_op}),
    ],
)
def test_what_the_model_leaves_out_is_as_the_job_says(services_of, loop, argument, more):
    job = JobDefaults(save_checkpoint_secs=7.0)
    assert services_of(loop, job, **more).save_checkpoint_secs == 7.0
    assert services_of(loop, job, **more, **{argument: 3.0}).save_checkpoint_secs == 3.0


def test_the_pruning_loop_summarizes_by_the_jobs_steps_unless_the_model_gives_seconds(services_of):
    job, update = JobDefaults(save_summaries_steps=7), {"mask_update_op": tf.no_op}
    services = services_of("model_pruning", job, **update)
    assert (services.save_summaries_steps, services.save_summaries_secs) == (7, None)
    services = services_of("model_pruning", job, **update, save_summaries_secs=5)
    assert (services.save_summaries_steps, services.save_summaries_secs) == (None, 5)


def test_the_number_of_steps_is_counted_as_each_loop_documents_it(build_graph):
    start = LoopContext(start_step=10)
    cases = {
        ("learn", "steps"): 15,
        ("learn", "max_steps"): 5,
        ("model_pruning", "number_of_steps"): 5,
    }
    for (loop, argument), expected in cases.items():
        more = {"mask_update_op": tf.no_op} if loop == "model_pruning" else {}
        build = build_with(loop, **{argument: 5}, **more)
        assert build_graph(build, task=start).loop.last_step == expected


def test_an_unknown_loop_is_refused():
    with pytest.raises(UsageError, match=r"loop='lern', expected one of training, learn, model_p"):
        TrainSpec(loss=None, train_op=tf.no_op, loop="lern")


@pytest.mark.parametrize("argument", ["supervisor_master", "graph", "train_op", "typo"])
def test_an_argument_that_the_service_gives_itself_is_refused(services_of, argument):
    with pytest.raises(UsageError, match=rf"loop_args\['{argument}'\] is no argument of the loop"):
        services_of("learn", **{argument: 1})


def test_a_missing_argument_is_named(services_of):
    with pytest.raises(UsageError, match=r"lacks 'mask_update_op'"):
        services_of("model_pruning")


def test_what_the_loop_refuses_is_told_with_the_loops_name(services_of):
    with pytest.raises(JobFailed, match=r"training loop 'learn' could not be made.*max_steps"):
        services_of("learn", steps=1, max_steps=1)
