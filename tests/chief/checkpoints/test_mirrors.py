"""Restore points in memory: their contents, and the failures that they survive. On real servers."""

import contextlib
import socket

import pytest
import tensorflow as tf

from paramserve.chief.checkpoints.mirrors import Mirrors
from paramserve.chief.recovery import Restorer, is_refused
from paramserve.cluster.runtime import session_config, start_server
from paramserve.cluster.session import BoundedCloseSession
from paramserve.cluster.spec import ClusterView, Member, Role, Task
from paramserve.model.graph import GraphOptions, build_train_graph, container_name
from paramserve.model.spec import TaskContext, TrainSpec

CHIEF = Task(Role.CHIEF, 0)
NUM_PS = 3


def build(task):
    """Each parameter server holds a weight, and its momentum; a step adds 1 to each weight."""
    weights = [
        tf.compat.v1.get_variable(f"w{i}", [4 + i], initializer=tf.zeros_initializer())
        for i in range(3 * NUM_PS)
    ]
    loss = -tf.add_n([tf.reduce_sum(weight) for weight in weights])
    return TrainSpec(loss=loss, optimizer=tf.compat.v1.train.MomentumOptimizer(1.0, 0.5))


class Cluster:
    """Servers in this process, and sessions of the chief over any of them."""

    def __init__(self):
        self.servers = [start_server("127.0.0.1") for _ in range(NUM_PS + 1)]
        self.chief = start_server("127.0.0.1")
        self.sessions = []

    def view(self, generation, *places):
        """A view of some of the servers, by their numbers."""
        return ClusterView(
            generation, tuple(Member(self.servers[i].address, f"{i}") for i in places)
        )

    def session(self, view, graph):
        config = session_config(view, CHIEF, self.chief.address)
        self.sessions.append(BoundedCloseSession(self.chief.target, graph, config))
        return self.sessions[-1]

    def reset(self):
        for session in self.sessions:
            session.close()
        self.sessions.clear()
        for server in (*self.servers, self.chief):
            tf.compat.v1.Session.reset(server.target, ["localhost", container_name(0)])


@pytest.fixture(scope="module")
def servers():
    return Cluster()


@pytest.fixture
def cluster(servers):
    yield servers
    servers.reset()


def build_chief(num_ps=NUM_PS):
    built = build_train_graph(
        build,
        TaskContext("chief", 0, 1, num_ps, sync=False),
        worker_device=CHIEF.device,
        options=GraphOptions(aggregate=1),
    )
    mirrors = Mirrors(built, num_ps, CHIEF)
    with built.graph.as_default():
        values = {
            variable.op.name: variable.read_value() for variable in tf.compat.v1.global_variables()
        }
    return built, mirrors, values


def take(mirrors, session, extra=None):
    return mirrors.take(session, contextlib.nullcontext, lambda: extra)


def train(session, built, steps):
    for _ in range(steps):
        session.run(built.train_op)


def same(one, other):
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def start(cluster, num_ps=NUM_PS):
    """A model that has made 3 steps, a restore point, and 2 steps more."""
    built, mirrors, values = build_chief(num_ps)
    session = cluster.session(cluster.view(1, *range(num_ps)), built.graph)
    session.run(built.init_op)
    train(session, built, 3)
    then = session.run(values)
    point = take(mirrors, session)
    train(session, built, 2)
    return built, mirrors, values, session, then, point


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_server_comes_back_from_its_neighbour_and_all_are_of_one_step(cluster, lost):
    built, mirrors, values, _, then, point = start(cluster)
    assert point.global_step == 3
    places = [NUM_PS if i == lost else i for i in range(NUM_PS)]
    session = cluster.session(cluster.view(2, *places), built.graph)
    mirrors.restore(session, [lost])
    assert same(session.run(values), then)
    train(session, built, 1)
    assert session.run(built.global_step) == 4


def test_what_was_noted_is_not_touched_by_the_steps_after_it(cluster):
    _, mirrors, values, session, then, _ = start(cluster)
    assert not same(session.run(values), then)
    mirrors.restore(session, [])
    assert same(session.run(values), then)


def test_partial_recovery_leaves_the_others_what_they_have(cluster):
    built, mirrors, values, old, then, _ = start(cluster)
    now = old.run(values)
    session = cluster.session(cluster.view(2, 0, 3, 2), built.graph)
    mirrors.restore(session, [1], only_lost=True)
    found = session.run(values)
    with built.graph.as_default():
        on_lost = {
            v.op.name for v in tf.compat.v1.global_variables() if v.device.endswith("task:1")
        }
    assert on_lost
    assert on_lost < set(found)
    for name, value in found.items():
        assert (value == (then if name in on_lost else now)[name]).all(), name


def test_with_one_server_the_chief_holds_the_copy(cluster):
    built, mirrors, values, _, then, point = start(cluster, num_ps=1)
    assert mirrors.survives([0])
    assert point.copies == {0}
    session = cluster.session(cluster.view(2, 3), built.graph)
    mirrors.restore(session, [0])
    assert same(session.run(values), then)


def test_after_a_loss_the_copies_that_were_lost_are_missed_until_the_next_point(cluster):
    built, mirrors, values, _, then, _ = start(cluster)
    session = cluster.session(cluster.view(2, 0, 3, 2), built.graph)
    mirrors.restore(session, [1])
    assert mirrors.is_wanted_soon
    assert not mirrors.survives([0]), "the copy of server 0 was on server 1"
    assert mirrors.survives([1]), "its own copy is where it was"
    assert mirrors.survives([2])
    take(mirrors, session)
    assert not mirrors.is_wanted_soon
    assert mirrors.survives([0])
    again = cluster.session(cluster.view(3, 1, 3, 2), built.graph)
    mirrors.restore(again, [0])
    assert same(again.run(values), then)


@pytest.mark.parametrize(
    ("lost", "survived"),
    [([], True), ([0], True), ([0, 1], False), ([0, 2], False), ([0, 1, 2], False)],
)
def test_neighbours_that_die_together_are_too_many(cluster, lost, survived):
    _, mirrors, *_ = start(cluster)
    assert mirrors.survives(lost) is survived
    assert mirrors.would_survive(frozenset(lost)) is survived


def test_a_point_that_was_cut_off_does_not_count(cluster):
    _, mirrors, values, session, then, point = start(cluster)

    def cut_off():
        raise tf.errors.UnavailableError(None, None, "the server is gone")

    with pytest.raises(tf.errors.UnavailableError):
        mirrors.take(session, contextlib.nullcontext, cut_off)
    assert mirrors.point is point
    mirrors.restore(session, [])
    assert same(session.run(values), then)


def test_a_point_that_comes_after_it_was_abandoned_does_not_count(cluster):
    """A server that was frozen wakes up, and the copy of then is whole long after the recovery."""
    _, mirrors, _, session, _, before = start(cluster)

    class Late:
        """A call that runs after all, when the chief no longer waits for it."""

        def run(self, fetches):
            values = session.run(fetches)
            mirrors.abandon()
            return values

    with pytest.raises(tf.errors.CancelledError, match="abandoned"):
        take(mirrors, Late())
    assert mirrors.point is before
    take(mirrors, session)
    assert (before.global_step, mirrors.point.global_step) == (3, 5)


class TestRestorer:
    """The model's state at the start of a generation."""

    def restorer(self, built, mirrors, logdir, recovery="rollback"):
        return Restorer(built, str(logdir), mirrors, recovery)

    def test_the_memory_serves_when_it_is_newer_than_the_checkpoint(self, cluster, tmp_path):
        built, mirrors, values = build_chief()
        restorer = self.restorer(built, mirrors, tmp_path)
        first = cluster.view(1, 0, 1, 2)
        session = cluster.session(first, built.graph)
        assert restorer.restore(session, first).source is None
        train(session, built, 1)
        save(built, session, tmp_path)
        train(session, built, 1)
        point = take(mirrors, session)
        then = session.run(values)
        second = cluster.view(2, 0, 1, 3)
        session = cluster.session(second, built.graph)
        assert restorer.restore(session, second).source is point
        assert same(session.run(values), then)

    def test_the_checkpoint_serves_when_it_is_newer(self, cluster, tmp_path):
        built, mirrors, values = build_chief()
        restorer = self.restorer(built, mirrors, tmp_path)
        first = cluster.view(1, 0, 1, 2)
        session = cluster.session(first, built.graph)
        restorer.restore(session, first)
        take(mirrors, session)
        train(session, built, 2)
        save(built, session, tmp_path)
        then = session.run(values)
        second = cluster.view(2, 0, 1, 3)
        session = cluster.session(second, built.graph)
        assert restorer.restore(session, second).source.path.endswith("model.ckpt-2")
        assert same(session.run(values), then)

    def test_the_checkpoint_serves_when_a_server_and_its_copy_are_gone(self, cluster, tmp_path):
        built, mirrors, values = build_chief()
        restorer = self.restorer(built, mirrors, tmp_path)
        first = cluster.view(1, 0, 1, 2)
        session = cluster.session(first, built.graph)
        restorer.restore(session, first)
        save(built, session, tmp_path)
        then = session.run(values)
        train(session, built, 1)
        take(mirrors, session)
        servers = cluster.servers
        second = ClusterView(
            2, tuple(Member(servers[i].address, life) for i, life in ((0, "0"), (3, "x"), (1, "y")))
        )
        session = cluster.session(second, built.graph)
        assert restorer.restore(session, second).source.path.endswith("model.ckpt-0")
        assert same(session.run(values), then)


def save(built, session, folder):
    with built.graph.as_default():
        step = int(session.run(built.global_step))
        built.saver.save(session, str(folder / "model.ckpt"), step, write_meta_graph=False)


def test_a_process_that_is_gone_refuses_and_one_that_lives_does_not(cluster):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert not is_refused(address)
    assert is_refused(address)
    assert not is_refused(cluster.servers[0].address)
