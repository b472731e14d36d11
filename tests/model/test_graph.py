"""The graph around a user's model: its placement, its steps, and its refusals."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from paramserve import train
from paramserve.cluster.spec import Role
from paramserve.contrib.training import create_train_op
from paramserve.data_plane.options import DataPlane
from paramserve.data_plane.prepare import prepare
from paramserve.errors import JobFailed, UsageError
from paramserve.model.spec import TaskContext, TrainSpec

v1 = tf.compat.v1


def sgd():
    return v1.train.GradientDescentOptimizer(1.0)


def weight(name="w", shape=(), **more):
    return v1.get_variable(name, shape, initializer=v1.zeros_initializer(), **more)


def returning(**spec):
    """A build function whose only variable has gradient 1, with something else in its spec."""

    def build(task):
        made = {name: value() if callable(value) else value for name, value in spec.items()}
        return TrainSpec(**{"loss": 1.0 * weight(), "optimizer": sgd(), **made})

    return build


class Task:
    """A built graph with a session, initialized by itself."""

    def __init__(self, built, session, *, with_tables=True):
        self.built = built
        self.session = session
        session.run(built.init_op)
        session.run(built.local_init_with_tables if with_tables else built.local_init_op)

    def step(self):
        """Makes one step; returns the global step after it and its examples."""
        built = self.built
        _, *after = self.session.run([built.train_op, built.step_after, built.step_examples])
        return tuple(after)

    def value(self, name):
        tensor = self.built.graph.get_tensor_by_name(f"{name}/Read/ReadVariableOp:0")
        return self.session.run(tensor)

    @property
    def totals(self):
        return tuple(self.session.run([self.built.global_step, self.built.examples]))


@pytest.fixture
def start(cluster, build_graph):
    """Builds a model on one parameter server and initializes it."""

    def start(build, *, with_tables=True, **more):
        built = build_graph(build, **more)
        role, index = more.get("role", Role.CHIEF), more.get("index", 0)
        return Task(built, cluster.session(built.graph, role, index), with_tables=with_tables)

    return start


# A step


def test_a_step_moves_the_weight_and_the_counts(start):
    task = start(returning(examples=32))
    assert [task.step(), task.step()] == [(1, 32), (2, 32)]
    assert task.value("w") == -2.0
    assert task.totals == (2, 64)


def test_examples_may_be_a_tensor_that_changes(start):
    def examples():
        ranges = tf.data.Dataset.range(10).batch(4)
        return tf.shape(v1.data.make_one_shot_iterator(ranges).get_next())[0]

    task = start(returning(examples=examples))
    assert [task.step() for _ in range(3)] == [(1, 4), (2, 4), (3, 2)]
    assert task.totals == (3, 10)
    with pytest.raises(tf.errors.OutOfRangeError):
        task.step()
    assert task.totals == (3, 10)


def test_gradients_may_be_transformed(start):
    task = start(
        returning(transform_gradients=lambda: lambda pairs: [(5.0 * g, v) for g, v in pairs])
    )
    task.step()
    assert task.value("w") == -5.0


def test_only_the_variables_that_were_named_are_trained(start):
    def build(task):
        first, second = weight("first"), weight("second")
        return TrainSpec(loss=first + second, optimizer=sgd(), variables=[second])

    task = start(build)
    task.step()
    assert (task.value("first"), task.value("second")) == (0.0, -1.0)


def test_a_models_own_training_op_counts_examples_like_any(start):
    def build(task):
        train_op = weight().assign_add(2.0, read_value=False)
        counted = v1.train.get_global_step().assign_add(1, read_value=False)
        return TrainSpec(loss=weight("l"), train_op=tf.group(train_op, counted), examples=6)

    task = start(build)
    assert task.step() == (1, 6)
    assert task.value("w") == 2.0
    assert task.totals == (1, 6)


def own_train_op(task):
    """A model with a training op of its own, which runs the update ops, too."""
    optimizer = v1.train.GradientDescentOptimizer(1.0)
    return TrainSpec(loss=1.0 * weight(), train_op=create_train_op(1.0 * weight("v"), optimizer))


@pytest.mark.parametrize("make_spec", [returning(), own_train_op])
def test_update_ops_run_once_with_each_step(start, make_spec):
    def build(task):
        average = weight("average", trainable=False)
        v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, average.assign_add(10.0, read_value=False))
        return make_spec(task)

    task = start(build)
    task.step()
    task.step()
    assert task.value("average") == 20.0


def test_the_models_summaries_are_merged(start):
    def build(task):
        spec = returning()(task)
        v1.summary.scalar("mine/first", spec.loss)
        v1.summary.scalar("mine/second", 2.0)
        return spec

    task = start(build)
    summary = v1.Summary.FromString(task.session.run(task.built.summary_op))
    assert [value.tag for value in summary.value] == ["mine/first", "mine/second"]
    assert start(returning()).built.summary_op is None


def test_lookup_tables_and_iterators_are_initialized_only_where_the_model_runs(start):
    def build(task):
        table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(["a"], [3.0]), default_value=0.0
        )
        letters = v1.data.make_initializable_iterator(tf.data.Dataset.from_tensors("a"))
        v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, letters.initializer)
        return TrainSpec(loss=weight() * table.lookup(letters.get_next()), optimizer=sgd())

    task = start(build, role=Role.WORKER)
    task.step()
    assert task.value("w") == -3.0
    chief = start(build, with_tables=False)
    assert len(chief.session.run(chief.built.uninitialized)) == 0
    with pytest.raises(tf.errors.FailedPreconditionError):
        chief.step()


def test_the_default_graph_is_untouched(build_graph):
    built = build_graph(returning())
    assert built.graph is not v1.get_default_graph()
    assert not v1.get_default_graph().finalized


def test_the_build_function_gets_its_context(build_graph):
    seen = []

    def build(task):
        seen.append(task)
        return returning()(task)

    build_graph(build, role=Role.WORKER, index=3, num_workers=2, params={"rate": "0.5"})
    assert seen == [TaskContext("worker", 3, 2, 1, False, {"rate": "0.5"})]


# Placement


def wide(task):
    first = weight("first", (1000,))
    second = weight("second", (10,))
    v1.get_local_variable("local", initializer=0.0)
    loss = tf.reduce_sum(first) + tf.reduce_sum(second)
    return TrainSpec(loss=loss, optimizer=v1.train.MomentumOptimizer(0.1, 0.9))


def devices(built):
    return {v.op.name: v.device for v in built.graph.get_collection(v1.GraphKeys.GLOBAL_VARIABLES)}


@pytest.mark.parametrize("sync", [False, True])
def test_variables_and_slots_are_on_the_parameter_servers_and_the_rest_on_the_task(
    build_graph, sync
):
    built = build_graph(wide, role=Role.WORKER, index=4, num_ps=2, sync=sync)
    places = devices(built)
    assert set(places) == {
        "global_step",
        "paramserve/examples",
        *("first", "first/Momentum", "second", "second/Momentum"),
    }
    assert all(device.startswith("/job:ps/task:") for device in places.values())
    assert places["first"] == places["first/Momentum"] != places["second"]
    assert places["global_step"] == "/job:ps/task:0"
    local = [
        variable.device
        for variable in built.graph.get_collection(v1.GraphKeys.LOCAL_VARIABLES)
        if variable.op.name in ("local", "token_step")
    ]
    assert local == ["/job:worker/task:4"] * len(local)
    assert len(local) == (2 if sync else 1)
    assert built.spec.loss.device == "/job:worker/task:4"
    held = [load.bytes for load in built.loads.values()]
    assert sum(held) == 2 * 4 * 1010 + 8 + 8
    assert min(held) >= 2 * 4 * 10


@pytest.mark.parametrize("sync", [False, True])
def test_chief_and_workers_find_each_variable_at_the_same_place(build_graph, sync):
    chief = build_graph(wide, role=Role.CHIEF, num_ps=3, sync=sync)
    worker = build_graph(wide, role=Role.WORKER, index=1, num_ps=3, sync=sync)
    assert devices(chief) == devices(worker)


def test_two_workers_train_the_same_variables(start):
    chief = start(returning())
    first = chief.built
    others = [start(returning(), role=Role.WORKER, index=index) for index in (0, 1)]
    chief.session.run(first.init_op)
    others[0].step()
    assert others[1].step() == (2, 1)
    assert chief.value("w") == -2.0


def test_training_on_two_servers_works_too(two_ps_cluster, build_graph):
    built = build_graph(wide, num_ps=2)
    task = Task(built, two_ps_cluster.session(built.graph))
    task.step()
    np.testing.assert_allclose(task.value("first"), -0.1)
    np.testing.assert_allclose(task.value("second"), -0.1)


# Errors


def not_connected():
    """A loss without any variable in it."""
    return tf.constant(1.0)


def dividing_by_zero(task):
    return 1 / 0


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (
            dividing_by_zero,
            JobFailed,
            r"^the build function failed: ZeroDivisionError: .* \(.*test_graph\.py:\d+\)$",
        ),
        (lambda: None, JobFailed, r"the build function failed: TypeError: .*argument"),
        (lambda task: None, UsageError, "returned NoneType, expected a paramserve.TrainSpec"),
        (lambda task: {"loss": 1.0}, UsageError, "returned dict, expected a paramserve.TrainSpec"),
        (
            lambda task: TrainSpec(loss=not_connected(), optimizer=sgd()),
            UsageError,
            "has no trainable variables: nothing to train",
        ),
        (
            returning(loss=not_connected),
            UsageError,
            r"does not depend on any trainable variable \(w:0\)",
        ),
        (
            lambda task: TrainSpec(loss=weight(shape=(3,)), optimizer=sgd()),
            UsageError,
            r"TrainSpec\.loss has shape \(3,\), expected a scalar",
        ),
        (
            returning(examples=lambda: tf.constant([4, 4])),
            UsageError,
            r"TrainSpec\.examples has shape \(2,\), expected a scalar",
        ),
        (returning(train_op=tf.no_op), UsageError, "either optimizer= or train_op=, got both"),
        (returning(optimizer=None), UsageError, "either optimizer= or train_op=, got neither"),
        (returning(loss=0.5), UsageError, "loss"),
        (returning(loss=None), UsageError, "loss"),
        (returning(optimizer=lambda: keras.optimizers.SGD(0.1)), UsageError, "optimizer"),
        (returning(variables=list), UsageError, "nothing to train"),
    ],
    ids=[
        "raises",
        "takes no task",
        "returns nothing",
        "returns a dict",
        "no variables",
        "independent loss",
        "loss of many numbers",
        "examples of many numbers",
        "two ways to train",
        "no way to train",
        "loss is a number",
        "no loss",
        "optimizer of another kind",
        "nothing named to train",
    ],
)
@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
def test_a_model_that_cannot_be_trained_is_refused_in_one_line(
    build_graph, build, kind, message, sync
):
    with pytest.raises(kind, match=message) as caught:
        build_graph(build, sync=sync)
    assert "\n" not in str(caught.value)


class Wrapper(v1.train.Optimizer):
    """Another optimizer, as ported scripts have them."""

    def __init__(self, inner):
        super().__init__(use_locking=False, name="wrapper")
        self.inside = inner

    def compute_gradients(self, *args, **kwargs):
        return self.inside.compute_gradients(*args, **kwargs)

    def apply_gradients(self, *args, **kwargs):
        return self.inside.apply_gradients(*args, **kwargs)


def with_loss_scale(inner):
    return v1.mixed_precision.MixedPrecisionLossScaleOptimizer(inner, 8)


class Hidden(v1.train.GradientDescentOptimizer):
    """An optimizer that hides the one that applies the gradients."""

    def __init__(self, inner):
        super().__init__(1.0)
        self.apply_gradients = lambda *args, **kwargs: inner.apply_gradients(*args, **kwargs)


@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
@pytest.mark.parametrize("wrap", [None, Wrapper, with_loss_scale, Hidden])
@pytest.mark.parametrize(
    "make", [train.SyncReplicasOptimizer, v1.train.SyncReplicasOptimizer], ids=["ours", "original"]
)
def test_a_models_own_sync_replicas_optimizer_is_refused(build_graph, make, wrap, sync):
    def optimizer():
        optimizer = make(sgd(), replicas_to_aggregate=1)
        return optimizer if wrap is None else wrap(optimizer)

    with pytest.raises(UsageError, match=r"its GradientDesc.*--replicas-to|inside it.*--replicas"):
        build_graph(returning(optimizer=optimizer), sync=sync)


@pytest.mark.parametrize("given", ["train_op", "hooks", "loop_args"])
@pytest.mark.parametrize(
    "make", [train.SyncReplicasOptimizer, v1.train.SyncReplicasOptimizer], ids=["ours", "original"]
)
def test_what_a_sync_replicas_optimizer_made_is_refused_too(build_graph, make, given):
    def build(task):
        loss, optimizer = 1.0 * weight(), make(sgd(), replicas_to_aggregate=1)
        update = optimizer.minimize(loss, global_step=v1.train.get_global_step())
        hooks = [optimizer.make_session_run_hook(is_chief=True)]
        spec = {
            "train_op": {"train_op": update},
            "hooks": {"optimizer": sgd(), "hooks": hooks},
            "loop_args": {"optimizer": sgd(), "loop_args": {"hooks": hooks}},
        }
        return TrainSpec(loss=loss, **spec[given])

    with pytest.raises(UsageError, match="the service aggregates gradients itself"):
        build_graph(build)


def test_a_training_op_of_its_own_cannot_be_aggregated(build_graph):
    def build(task):
        return TrainSpec(loss=weight(), train_op=weight("l").assign_add(1.0))

    build_graph(build, sync=False)
    with pytest.raises(UsageError, match="cannot be aggregated: give optimizer=, or --async"):
        build_graph(build, sync=True)


# Branches


def test_gradients_may_be_summed_and_applied_every_few_steps(two_ps_cluster, build_graph):
    def build(task):
        weights = weight("w"), weight("x")
        optimizer = v1.train.MomentumOptimizer(1.0, 0.5)
        pairs = optimizer.compute_gradients(1.0 * weights[0] + 2.0 * weights[1])
        sums = [weight(f"sum{i}", trainable=False) for i in range(2)]
        count = weight("count", dtype=tf.int64, trainable=False)
        added = [total.assign_add(grad) for total, (grad, _) in zip(sums, pairs, strict=True)]
        with tf.control_dependencies(added):
            is_due = tf.equal(count.assign_add(1) % 3, 0)

        def apply():
            pairs = list(zip(sums, weights, strict=True))
            update = optimizer.apply_gradients(pairs, v1.train.get_global_step())
            with tf.control_dependencies([update]):
                return tf.group(*(total.assign(0.0) for total in sums))

        return TrainSpec(loss=weights[0] + 0.0, train_op=tf.cond(is_due, apply, tf.no_op))

    built = build_graph(build, num_ps=2)
    with built.graph.as_default():
        prepare(built.graph, DataPlane(storage="flat"), built.steps)
    task = Task(built, two_ps_cluster.session(built.graph))
    assert [task.step()[0] for _ in range(7)] == [0, 0, 1, 1, 1, 2, 2]
    # Momentum: the second of two equal gradients counts one and a half times.
    assert (task.value("w"), task.value("x")) == (-3.0 - 4.5, -6.0 - 9.0)


def test_what_a_branch_collects_is_left_out_with_a_word(start, caplog):
    def build(task):
        moved = weight("moved", trainable=False)

        def branch():
            v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, moved.assign_add(1.0).op)
            v1.summary.scalar("inside", moved)
            return tf.constant(1.0)

        loss = weight() * tf.cond(tf.constant(True), branch, lambda: tf.constant(0.0))
        v1.summary.scalar("loss", loss)
        return TrainSpec(loss=loss, optimizer=sgd())

    task = start(build)
    task.step()
    assert task.value("w") == -1.0
    merged = v1.Summary.FromString(task.session.run(task.built.summary_op))
    assert [value.tag for value in merged.value] == ["loss"]
    assert "in the collection update_ops: in a branch or a loop" in caplog.text


@pytest.mark.parametrize("storage", ["plain", "flat"])
@pytest.mark.parametrize("how", ["all", "scope", "warm_start", "vocabulary"])
def test_a_model_may_start_with_the_values_of_a_checkpoint(
    two_ps_cluster, build_graph, tmp_path, how, storage
):
    (tmp_path / "old").write_text("a\nb\nc\n")
    (tmp_path / "new").write_text("c\nx\na\n")
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("table", initializer=[[0.0], [1.0], [2.0]])
        v1.train.get_or_create_global_step()
        session.run(v1.global_variables_initializer())
        path = v1.train.Saver().save(session, str(tmp_path / "model"))

    def build(task):
        options = {"partitioner": v1.fixed_size_partitioner(3)} if how == "vocabulary" else {}
        weight("table", [3, 1], **options)
        if how in ("all", "scope"):
            names = {"all": {"/": "/"}, "scope": {"table": "table"}}[how]
            v1.train.init_from_checkpoint(path, names)
        else:
            new, old = str(tmp_path / "new"), str(tmp_path / "old")
            info = train.VocabInfo(new, 3, 0, old, 3, v1.constant_initializer(9.0))
            train.warm_start(path, "table", {"table": info} if how == "vocabulary" else None)
        if how != "all":
            weight("other")
        loss = sum(map(tf.reduce_sum, v1.trainable_variables()))
        return TrainSpec(loss=loss, optimizer=v1.train.AdamOptimizer(0.0))

    built = build_graph(build, num_ps=2)
    with built.graph.as_default():
        table = tf.concat([v.read_value() for v in v1.global_variables("table(/part_.)?:")], 0)
        prepare(built.graph, DataPlane(storage=storage), built.steps)
    task = Task(built, two_ps_cluster.session(built.graph))
    task.step()
    expected = [2.0, 9.0, 0.0] if how == "vocabulary" else [0.0, 1.0, 2.0]
    assert task.session.run(table)[:, 0].tolist() == expected
