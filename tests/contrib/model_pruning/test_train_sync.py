"""`contrib.model_pruning.train` with `SyncReplicasOptimizer`s: chief and worker, and their ends.

The servers of a whole cluster run in this process, and each task in a thread.
"""

import threading
import time

import pytest
import tensorflow as tf

from paramserve.contrib.model_pruning import train
from paramserve.contrib.model_pruning.learning import train_step
from support.static_servers import start_servers

v1 = tf.compat.v1

# An end that waits for TensorFlow's grace period takes 120 s.
SOON_SECS = 30.0


@pytest.fixture
def cluster():
    """Server by job: "ps", "chief" and "worker"."""
    servers = start_servers(ps=1, chief=1, worker=1)
    return {job: server for (job, _), server in servers.items()}


class Task(threading.Thread):
    """A task of synchronous training; any two gradients make a step."""

    def __init__(self, cluster, job, step_function=train_step, optimizers=1, **arguments):
        super().__init__(daemon=True)
        self.server = cluster[job]
        self.job = job
        self.step_function = step_function
        self.optimizers = optimizers
        self.arguments = arguments
        self.loss = self.error = self.ended_at = None
        self.start()

    def build(self):
        step = v1.train.get_or_create_global_step()
        weight = v1.get_variable("weight", initializer=5.0)
        loss = tf.square(weight)
        optimizers, updates = [], []
        for number in range(self.optimizers):
            inner = v1.train.GradientDescentOptimizer(0.01)
            with v1.variable_scope(f"model_{number}"):
                loss += tf.square(v1.get_variable("weight", initializer=1.0) - weight)
            optimizers.append(v1.train.SyncReplicasOptimizer(inner, 2, 2, name=f"sync_{number}"))
            own = v1.trainable_variables()[number : number + 1]
            updates.append(optimizers[-1].minimize(loss, step, var_list=own))
        with tf.control_dependencies(updates):
            return tf.identity(loss), optimizers

    def run(self):
        device = f"/job:{self.job}/task:0"
        place = v1.train.replica_device_setter(ps_tasks=1, worker_device=device)
        with tf.Graph().as_default(), v1.device(place):
            train_op, optimizers = self.build()
            try:
                self.loss = train(
                    train_op,
                    None,
                    tf.no_op(),
                    self.step_function,
                    master=self.server.target,
                    is_chief=self.job == "chief",
                    sync_optimizer=optimizers if self.optimizers > 1 else optimizers[0],
                    **self.arguments,
                )
            except BaseException as error:
                self.error = error
            self.ended_at = time.monotonic()

    def wait(self):
        self.join(120)
        assert not self.is_alive()
        return self


def slowly(session, train_op, global_step, kwargs):
    time.sleep(0.2)
    return train_step(session, train_op, global_step, kwargs)


def beginning_together(function, everybody):
    """Makes a step function whose first call waits until all workers have begun."""
    begun = []

    def step_function(*arguments):
        if not begun:
            begun.append(everybody.wait(60))
        return function(*arguments)

    return step_function


def global_step(cluster):
    with tf.Graph().as_default(), v1.device("/job:ps/task:0"):
        step = v1.train.get_or_create_global_step()
        with v1.Session(cluster["chief"].target) as session:
            return session.run(step)


@pytest.mark.original_api("tf.contrib.model_pruning.train(sync_optimizer)")
@pytest.mark.parametrize("slow", ["chief", "worker"])
def test_chief_and_worker_make_common_steps_and_end_together(cluster, slow):
    """The fast one has used up the tokens, and waits for one when the other makes the last step."""
    everybody = threading.Barrier(2)
    functions = {job: slowly if job == slow else train_step for job in ("worker", "chief")}
    tasks = [
        Task(cluster, job, beginning_together(function, everybody), number_of_steps=6)
        for job, function in functions.items()
    ]
    worker, chief = (task.wait() for task in tasks)
    assert (worker.error, chief.error) == (None, None)
    assert worker.loss < 41
    assert chief.loss < 41
    assert abs(chief.ended_at - worker.ended_at) < SOON_SECS
    assert global_step(cluster) in (6, 7)


@pytest.mark.original_api("tf.contrib.model_pruning.train(sync_optimizer)")
def test_the_same_servers_train_again(cluster):
    """The queue of tokens lives on the parameter server, where a closed one stays closed."""
    for number_of_steps in (3, 6):
        arguments = {"number_of_steps": number_of_steps}
        if number_of_steps == 6:
            arguments |= {"init_op": None}
        tasks = [Task(cluster, job, **arguments) for job in ("chief", "worker")]
        assert [task.wait().error for task in tasks] == [None, None]
        assert global_step(cluster) in (number_of_steps, number_of_steps + 1)


@pytest.mark.original_api("tf.contrib.model_pruning.train(sync_optimizer)")
def test_several_optimizers(cluster):
    tasks = [Task(cluster, job, optimizers=2, number_of_steps=6) for job in ("chief", "worker")]
    assert [task.wait().error for task in tasks] == [None, None]
    assert global_step(cluster) >= 6


def test_no_optimizer_in_the_list_is_as_none():
    with tf.Graph().as_default():
        train_op = v1.assign_add(v1.train.get_or_create_global_step(), 1)
        assert train(train_op, None, tf.no_op(), number_of_steps=2, sync_optimizer=[]) == 2


@pytest.mark.parametrize("fails", [False, True])
def test_when_the_chief_ends_early_a_waiting_worker_ends_too(cluster, fails):
    waiting = threading.Event()

    def some_steps(session, train_op, global_step, kwargs):
        loss, _ = train_step(session, train_op, global_step, kwargs)
        if waiting.is_set():
            if fails:
                raise KeyError("a bug")
            return loss, True
        return loss, False

    def one_step(session, train_op, global_step, kwargs):
        waiting.set()
        return train_step(session, train_op, global_step, kwargs)

    worker = Task(cluster, "worker", one_step)
    chief = Task(cluster, "chief", some_steps)
    assert isinstance(chief.wait().error, KeyError) == fails
    assert worker.wait().error is None
    assert abs(chief.ended_at - worker.ended_at) < SOON_SECS
