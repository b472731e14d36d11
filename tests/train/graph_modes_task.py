"""Features that depend on the graph mode, in the mode named on the command line."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from paramserve import train

v1 = tf.compat.v1
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def initialized(*fetches, update=None):
    with v1.Session() as session:
        session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
        if update is not None:
            session.run(update)
        return session.run(list(fetches))


@check
def file_names_are_produced(directory):
    (directory / "a.txt").touch()
    names = train.match_filenames_once(str(directory / "*.txt"))
    queue = train.string_input_producer(names, num_epochs=1)
    value = queue.dequeue()
    with train.MonitoredSession() as session:
        assert session.run(value) == str(directory / "a.txt").encode()


@check
def averages_of_both_kinds_of_variables(directory):
    weights = [
        v1.get_variable(str(kind), initializer=2.0, use_resource=kind) for kind in (True, False)
    ]
    averages = train.ExponentialMovingAverage(0.5)
    made = averages.apply(weights)
    assert initialized(*(averages.average(weight) for weight in weights), update=made) == [2.0, 2.0]


@check
def averages_of_losses_and_of_their_sum(directory):
    """Builds them as Inception and the CIFAR-10 model do."""
    weight = v1.get_variable("weight", initializer=2.0, regularizer=tf.square)
    v1.losses.add_loss(3.0 * weight)
    losses = [*v1.losses.get_losses(), *v1.losses.get_regularization_losses()]
    total = tf.add_n(losses, name="total_loss")
    averages = train.ExponentialMovingAverage(0.5, name="avg")
    made = averages.apply([*losses, total])
    names = [averages.average_name(loss) for loss in (losses[1], total)]
    assert names == ["weight/Regularizer/Square/avg", "total_loss/avg"]
    found = initialized(*(averages.average(loss) for loss in (*losses, total)), update=made)
    assert found == [3.0, 2.0, 5.0]


@check
def weights_shrink(directory):
    weight = v1.get_variable("weight", initializer=[1.0, -0.1])
    shrink = train.sdca_shrink_l1([weight], 0.5, 2.0)
    np.testing.assert_allclose(initialized(weight, update=shrink)[0], [0.75, 0.0])


@check
def the_global_step_is_found_by_its_name(directory):
    step = v1.get_variable("global_step", initializer=4)
    assert train.get_or_create_global_step() is step
    with v1.Session() as session:
        session.run(step.initializer)
        assert train.global_step(session, "global_step:0") == 4


@check
def a_constant_fills_a_new_vocabulary(directory):
    (directory / "old").write_text("a\n")
    (directory / "new").write_text("b\na\n")
    with tf.Graph().as_default(), v1.Session() as session:
        session.run(v1.get_variable("table", initializer=[[1.0]]).initializer)
        checkpoint = train.Saver().save(session, str(directory / "model"))
    table = v1.get_variable("table", [2, 1])
    info = train.VocabInfo(
        str(directory / "new"),
        2,
        0,
        str(directory / "old"),
        backup_initializer=v1.constant_initializer(7.0),
    )
    train.warm_start(checkpoint, var_name_to_vocab_info={"table": info})
    assert initialized(table)[0].tolist() == [[7.0], [1.0]]


@check
def monitored_training_saves_and_resumes(directory):
    weight = v1.get_variable("weight", initializer=5.0)
    step = train.get_or_create_global_step()
    update = train.GradientDescentOptimizer(0.25).minimize(tf.square(weight), global_step=step)
    names = train.LoggingTensorHook(["weight:0"], every_n_iter=1)
    for last_step in (3, 5):
        stop = train.StopAtStepHook(last_step=last_step)
        with train.MonitoredTrainingSession(
            checkpoint_dir=str(directory), hooks=[stop, names], save_checkpoint_steps=2
        ) as session:
            while not session.should_stop():
                session.run(update)
    assert train.load_variable(str(directory), "global_step") == 5
    assert train.load_variable(str(directory), "weight") == 5.0 * 0.5**5


@check
def a_supervisors_threads_save_and_summarize(directory):
    v1.summary.scalar("answer", 42.0)
    step_op = train.get_or_create_global_step().assign_add(1)
    supervisor = train.Supervisor(logdir=str(directory))
    with supervisor.managed_session() as session:
        session.run(step_op)
    assert train.latest_checkpoint(str(directory)) is not None


def main():
    for name in sys.argv[1:]:
        getattr(v1, name)()
    for function in CHECKS:
        with tempfile.TemporaryDirectory() as directory, tf.Graph().as_default():
            function(Path(directory))
        print(function.__name__)


if __name__ == "__main__":
    main()
