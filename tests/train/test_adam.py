"""`AdamOptimizer`: TensorFlow's weights and checkpoints, and no talk between parameter servers."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve import train
from paramserve.chief.checkpoints.initialization import initialize
from paramserve.model.graph import GraphOptions, build_train_graph
from paramserve.model.spec import TaskContext, TrainSpec
from support.static_servers import start_servers

v1 = tf.compat.v1
STOCK, OURS = v1.train.AdamOptimizer, train.AdamOptimizer

both_kinds = pytest.mark.parametrize("use_resource", [True, False], ids=["resource", "ref"])


@pytest.fixture(scope="module")
def two_servers():
    """Two parameter servers and a worker, all in this process."""
    return start_servers(ps=2, worker=1, server=train.Server)


@pytest.fixture
def target(two_servers):
    v1.Session.reset(two_servers["worker", 0].target)
    return two_servers["worker", 0].target


def on_servers(num_ps):
    return v1.device(v1.train.replica_device_setter(ps_tasks=num_ps, worker_device="/job:worker"))


def get(name, seed, shape=(5, 5), **options):
    values = np.random.RandomState(seed).randn(*shape)
    return v1.get_variable(name, initializer=values.astype(np.float32), **options)


def build(make, num_ps=2, use_resource=True, **options):
    """A chain of dense layers and a lookup with a repeated id; gives the optimizer and its step."""
    with on_servers(num_ps):
        step = train.get_or_create_global_step()
        x = tf.constant(np.random.RandomState(99).randn(4, 5), tf.float32)
        for i in range(4):
            x = tf.tanh(tf.matmul(x, get(f"layer{i}", i, use_resource=use_resource)))
        table = get("table", 7, (6, 5), use_resource=use_resource)
        x *= tf.nn.embedding_lookup(table, [1, 1, 3, 4])
        optimizer = make(0.1, **options)
        return optimizer, optimizer.minimize(tf.reduce_mean(x), step)


def values_of(session):
    return {v.op.name: session.run(v) for v in v1.global_variables()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.fixture
def trained(target, tmp_path):
    """Trains in a graph of its own, from and to a checkpoint; returns all values."""

    def run(make, steps=3, *, start=None, save=None, sharded=False, **model):
        v1.Session.reset(target)
        with tf.Graph().as_default():
            _, update = build(make, **model)
            init, saver = v1.global_variables_initializer(), train.Saver(sharded=sharded)
            with v1.Session(target) as session:
                if start is None:
                    session.run(init)
                else:
                    saver.restore(session, str(tmp_path / start))
                for _ in range(steps):
                    session.run(update)
                if save is not None:
                    saver.save(session, str(tmp_path / save))
                return values_of(session)

    return run


def copies_of(name, optimizer):
    """The power's variables, by their task."""
    return optimizer._get_beta_accumulators()[["beta1_power", "beta2_power"].index(name)].copies


# Weights


@both_kinds
@pytest.mark.parametrize("num_ps", [1, 2])
@pytest.mark.original_api("tf.train.AdamOptimizer")
def test_weights_are_those_of_tensorflow(trained, num_ps, use_resource):
    model = {"num_ps": num_ps, "use_resource": use_resource}
    assert_same(trained(OURS, 5, **model), trained(STOCK, 5, **model))


@pytest.mark.parametrize(
    "options",
    [
        {"beta1": 0.5, "beta2": 0.9, "epsilon": 0.1, "use_locking": True},
        {"name": "Mine", "use_own_namescope_for_non_slot_vars": True},
    ],
)
def test_options_are_those_of_tensorflow(trained, options):
    assert_same(trained(OURS, **options), trained(STOCK, **options))


def results_of(target, program):
    """All values that a program leaves behind, with TensorFlow's optimizer and with ours."""
    results = []
    for make in (STOCK, OURS):
        v1.Session.reset(target)
        with tf.Graph().as_default(), on_servers(2):
            updates = program(make)
            init = v1.global_variables_initializer()
            with v1.Session(target) as session:
                session.run(init)
                for update in updates:
                    session.run(update)
                results.append(values_of(session))
    return results


def test_types_may_be_mixed_and_the_rate_may_fall(target):
    def program(make):
        step = train.get_or_create_global_step()
        variables = [
            v1.get_variable(f"v{i}", [3], dtype, v1.ones_initializer())
            for i, dtype in enumerate([tf.float64, tf.float32, tf.bfloat16, tf.float32])
        ]
        loss = sum(tf.reduce_sum(tf.cast(v, tf.float64) ** 2) for v in variables)
        rate = train.exponential_decay(0.1, step, 1, 0.5)
        return [make(lambda: rate, beta1=tf.constant(0.8)).minimize(loss, step)] * 4

    stock, ours = results_of(target, program)
    assert_same(ours, stock)


def test_one_optimizer_may_train_parts_in_turn(target):
    def program(make):
        first, second, third = (get(f"v{i}", i, [3]) for i in range(3))
        optimizer = make(0.1)
        loss = tf.reduce_sum((first * second * third) ** 2)
        # The second of them is alone on its server; its powers of beta are shared with the others.
        outer = optimizer.minimize(loss, var_list=[first, third])
        inner = optimizer.minimize(loss, var_list=[second])
        both = optimizer.minimize(loss)
        return [outer, inner, both, inner, outer, both]

    stock, ours = results_of(target, program)
    assert_same(ours, stock)


def test_updates_may_be_conditional(target):
    def program(make):
        step = train.get_or_create_global_step()
        first, second = get("first", 0, [3]), get("second", 1, [3])
        gradients = [tf.ones([3]), tf.ones([3])]
        optimizer = make(0.1)

        def update():
            pairs = zip(gradients, (first, second), strict=True)
            with tf.control_dependencies([optimizer.apply_gradients(list(pairs))]):
                return tf.constant(True)

        is_due = tf.equal(step.read_value() % 2, 0)
        done = tf.cond(is_due, update, lambda: tf.constant(False))
        with tf.control_dependencies([done]):
            return [step.assign_add(1)] * 5

    stock, ours = results_of(target, program)
    assert_same(ours, stock)


def test_without_servers_it_is_tensorflows():
    w = get("w", 0, [3])
    OURS(0.1).minimize(tf.reduce_sum(w))
    assert [v.op.name for v in v1.global_variables()] == [
        *("w", "beta1_power", "beta2_power", "w/Adam", "w/Adam_1")
    ]
    assert all(isinstance(v, tf.Variable) for v in v1.global_variables())


# Transfers


def messages(make, target):
    """Returns (sender, receiver) of the transfers between tasks in one step."""
    v1.Session.reset(target)
    with tf.Graph().as_default():
        _, update = build(make)
        init = v1.global_variables_initializer()
        metadata = v1.RunMetadata()
        with v1.Session(target) as session:
            session.run(init)
            options = v1.RunOptions(output_partition_graphs=True)
            session.run(update, options=options, run_metadata=metadata)
    return [
        tuple(
            node.attr[end].s.decode().split("/device")[0].replace("/replica:0", "")
            for end in ("send_device", "recv_device")
        )
        for graph in metadata.partition_graphs
        for node in graph.node
        if node.op == "_Recv"
    ]


def test_nothing_crosses_between_parameter_servers(target):
    stock, ours = messages(STOCK, target), messages(OURS, target)
    servers = {"/job:ps/task:0", "/job:ps/task:1"}
    assert len([ends for ends in stock if set(ends) == servers]) > 4
    assert len([ends for ends in ours if set(ends) == servers]) == 0
    assert len(ours) < len(stock)


def test_powers_are_where_variables_are():
    optimizer, _ = build(OURS)
    for name in ("beta1_power", "beta2_power"):
        copies = copies_of(name, optimizer)
        assert {task: copy.device for task, copy in copies.items()} == {
            "/job:ps/task:0": "/job:ps/task:0",
            "/job:ps/task:1": "/job:ps/task:1",
        }
    first, second = optimizer._get_beta_accumulators()
    assert optimizer.variables().count(first) == optimizer.variables().count(second) == 1


# Checkpoints


@pytest.mark.parametrize(
    ("saved", "restored", "sharded"),
    [
        ((STOCK, 2), (OURS, 2), True),
        ((OURS, 2), (STOCK, 2), True),
        ((OURS, 2), (OURS, 1), False),
        ((OURS, 1), (OURS, 2), False),
    ],
    ids=["from TensorFlow's", "to TensorFlow's", "to one server", "to two servers"],
)
def test_checkpoints_are_those_of_tensorflow(trained, tmp_path, saved, restored, sharded):
    expected = trained(STOCK, 5)
    trained(saved[0], 3, num_ps=saved[1], save="model", sharded=sharded)
    names = [name for name, _ in train.list_variables(str(tmp_path / "model"))]
    assert sorted(names) == sorted(expected)
    found = trained(restored[0], 2, num_ps=restored[1], start="model", sharded=sharded)
    assert_same(found, expected)


def restorers(path):
    """Ways to restore a checkpoint, each made for a built model: run in a session."""
    variables = v1.global_variables()
    saver = train.Saver({variable.op.name: variable for variable in variables})
    yield "by a dict", lambda session: saver.restore(session, path)
    train.init_from_checkpoint(path, {v.op.name: v for v in variables})
    init = v1.global_variables_initializer()
    yield "by initializers", lambda session: session.run(init)


@both_kinds
def test_all_ways_to_restore_fill_all_copies(target, trained, tmp_path, use_resource):
    trained(STOCK, 3, save="model", use_resource=use_resource)
    expected = trained(STOCK, 5, use_resource=use_resource)
    optimizer, update = build(OURS, use_resource=use_resource)
    for way, restore in restorers(str(tmp_path / "model")):
        v1.Session.reset(target)
        with v1.Session(target) as session:
            restore(session)
            powers = session.run(copies_of("beta1_power", optimizer))
            assert list(powers.values()) == pytest.approx([0.9**4] * 2), way
            session.run([update])
            session.run([update])
            assert_same(values_of(session), expected)


def test_an_imported_graph_restores_all_copies(target, trained, tmp_path):
    expected = trained(OURS, 5, save="whole")
    trained(OURS, 3, save="model")
    v1.Session.reset(target)
    meta = str(tmp_path / "model.meta")
    saver = train.import_meta_graph(meta)
    [update] = v1.get_collection(v1.GraphKeys.TRAIN_OP)
    with v1.Session(target) as session:
        saver.restore(session, str(tmp_path / "model"))
        for _ in range(2):
            session.run(update)
        assert_same(values_of(session), expected)
        session.run(v1.global_variables_initializer())
        session.run(update)  # All copies are initialized.


def test_objects_are_restored_by_their_place_in_the_model(target, tmp_path):
    results = []
    for make, start in ((OURS, None), (STOCK, "objects-1"), (OURS, "objects-1")):
        v1.Session.reset(target)
        with tf.Graph().as_default():
            optimizer, update = build(make)
            variables = {v.op.name: v for v in v1.trainable_variables()}
            checkpoint = train.Checkpoint(optimizer=optimizer, **variables)
            status = checkpoint.restore(start and str(tmp_path / start))
            init = v1.global_variables_initializer()
            with v1.Session(target) as session:
                session.run(init)
                if start is None:
                    session.run(update)
                    checkpoint.save(str(tmp_path / "objects"), session=session)
                else:
                    status.assert_consumed()
                    status.run_restore_ops(session)
                session.run(update)
                values = values_of(session)
                results.append({k: v for k, v in values.items() if k in variables})
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


# Initialization


@both_kinds
def test_a_power_is_initialized_when_all_its_copies_are(target, use_resource):
    optimizer, update = build(OURS, use_resource=use_resource)
    missing = v1.report_uninitialized_variables(v1.global_variables())
    init = v1.global_variables_initializer()
    first, second = copies_of("beta2_power", optimizer).values()
    with v1.Session(target) as session:
        session.run(first.initializer if use_resource else first.assign(0.5))
        assert (b"beta2_power" in session.run(missing)) == (not use_resource)
        session.run(init)
        assert session.run(missing).size == 0
        session.run(update)
        assert session.run([first, second]) == pytest.approx([0.999**2] * 2)


def test_assigning_a_power_assigns_all_copies(target):
    optimizer, _ = build(OURS)
    power, _ = optimizer._get_beta_accumulators()
    assign, set_only = power.assign(0.25), power.assign(0.5, read_value=False)
    with v1.Session(target) as session:
        assert session.run(assign) == 0.25
        assert session.run(power.copies) == dict.fromkeys(power.copies, 0.25)
        session.run(set_only)
        assert session.run([power, tf.convert_to_tensor(power)]) == [0.5, 0.5]


def lose(session, graph, device):
    """Destroys the variables of a parameter server."""
    with graph.as_default():
        handles = [op.outputs[0] for op in graph.get_operations() if op.type == "VarHandleOp"]
        handles = [handle for handle in handles if handle.device == device]
        destroy = [tf.raw_ops.DestroyResourceOp(resource=handle) for handle in handles]
    session.run(destroy)
    return len(handles)


def test_a_service_goes_on_after_it_lost_a_server(target, logdir, monkeypatch):
    # It would clear the default graph, which here is the test's.
    monkeypatch.setattr("paramserve.model.graph.reset_names", lambda: None)

    def model(context):
        x = get("x", 0, [3]) * get("y", 1, [3]) * get("z", 2, [3])
        return TrainSpec(loss=tf.reduce_sum(x), optimizer=OURS(0.1))

    context = TaskContext(role="chief", num_ps=2, sync=False)
    built = build_train_graph(
        model,
        context,
        worker_device="/job:worker/task:0",
        options=GraphOptions(aggregate=1),
    )
    variables = built.graph.get_collection(v1.GraphKeys.GLOBAL_VARIABLES)
    with v1.Session(target, graph=built.graph) as session:
        assert b"beta1_power" in session.run(built.uninitialized)
        assert initialize(built, session, logdir) is None
        session.run(built.train_op)
        with built.graph.as_default():
            path = built.saver.save(session, f"{logdir}/model.ckpt", global_step=1)
        session.run(built.train_op)
        expected = session.run({v.op.name: v for v in variables})
        assert lose(session, built.graph, "/job:ps/task:1") > 2
        assert b"beta1_power" in session.run(built.uninitialized)
        assert initialize(built, session, logdir).path == path
        session.run(built.train_op)
        assert_same(session.run({v.op.name: v for v in variables}), expected)


# Inside others


def test_a_monitored_session_goes_on_from_its_checkpoint(target, logdir, trained):
    expected = trained(STOCK, 4)
    for last_step in (2, 4):
        v1.Session.reset(target)
        with tf.Graph().as_default():
            _, update = build(OURS)
            hooks = [train.StopAtStepHook(last_step=last_step)]
            with train.MonitoredTrainingSession(
                target, checkpoint_dir=logdir, hooks=hooks
            ) as session:
                while not session.should_stop():
                    session.run(update)
    reader = train.load_checkpoint(train.latest_checkpoint(logdir))
    names = reader.get_variable_to_shape_map()
    assert_same({name: reader.get_tensor(name) for name in names}, expected)


def test_sync_replicas_applies_with_it(target, logdir):
    weights = []
    for make in (STOCK, OURS):
        v1.Session.reset(target)
        with tf.Graph().as_default(), on_servers(2):
            step = train.get_or_create_global_step()
            variables = [get(f"v{i}", i, [3]) for i in range(3)]
            sync = v1.train.SyncReplicasOptimizer(make(0.1), 1, 1)
            update = sync.apply_gradients([(tf.ones([3]), v) for v in variables], step)
            hooks = [sync.make_session_run_hook(is_chief=True, num_tokens=0)]
            seen = {}
            with train.MonitoredTrainingSession(target, hooks=hooks, release_secs=0.5) as session:
                # A thread of the chief applies pushed gradients.
                for _ in range(3):
                    session.run(update)
                while session.run(step) < 3:
                    pass
                seen = session.run({v.op.name: v for v in variables})
        weights.append(seen)
    assert_same(weights[1], weights[0])
