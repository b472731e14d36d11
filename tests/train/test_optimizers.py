"""Optimizers against NumPy: dense and sparse gradients, in this process and on a server."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve import train

v1 = tf.compat.v1

LR = 0.3
START = np.array([[1.0, -2.0], [0.5, 3.0], [-1.5, 0.1], [2.0, -0.2]])
# Row 2 comes twice, and row 1 not in the first step.
INDICES = [[2, 0, 2], [1, 3, 0], [3, 3, 2], [0, 2, 1]]
VALUES = np.random.default_rng(3).normal(size=[len(INDICES), 3, 2])


def gradient_descent(w, g, slots, t):
    return w - LR * g


def momentum(w, g, slots, t, nesterov=False):
    a = slots["a"] = 0.9 * slots.get("a", 0 * w) + g
    return w - LR * (g + 0.9 * a if nesterov else a)


def nesterov(w, g, slots, t):
    return momentum(w, g, slots, t, nesterov=True)


def adagrad(w, g, slots, t):
    a = slots["a"] = slots.get("a", 0 * w + 0.1) + g**2
    return w - LR * g / np.sqrt(a)


def adadelta(w, g, slots, t):
    a = slots["a"] = 0.9 * slots.get("a", 0 * w) + 0.1 * g**2
    u = slots.get("u", 0 * w)
    update = np.sqrt(u + 1e-2) / np.sqrt(a + 1e-2) * g
    slots["u"] = 0.9 * u + 0.1 * update**2
    return w - LR * update


def adam(w, g, slots, t):
    m = slots["m"] = 0.8 * slots.get("m", 0 * w) + 0.2 * g
    v = slots["v"] = 0.9 * slots.get("v", 0 * w) + 0.1 * g**2
    return w - LR * np.sqrt(1 - 0.9**t) / (1 - 0.8**t) * m / (np.sqrt(v) + 1e-3)


def rms_prop(w, g, slots, t, centered=False):
    s = slots["s"] = 0.9 * slots.get("s", 0 * w + 1) + 0.1 * g**2
    c = slots["c"] = 0.9 * slots.get("c", 0 * w) + 0.1 * g
    b = 0.5 * slots.get("b", 0 * w) + LR * g / np.sqrt(s - (c**2 if centered else 0) + 1e-3)
    slots["b"] = b
    return w - b


def centered_rms_prop(w, g, slots, t):
    return rms_prop(w, g, slots, t, centered=True)


def ftrl(w, g, slots, t):
    # McMahan et al., "Ad Click Prediction: a View from the Trenches", algorithm 1.
    old = slots.get("n", 0 * w + 0.1)
    n = slots["n"] = old + g**2
    z = slots["z"] = slots.get("z", 0 * w) + g - (np.sqrt(n) - np.sqrt(old)) / LR * w
    return np.where(np.abs(z) > 0.05, -(z - np.sign(z) * 0.05) / (np.sqrt(n) / LR + 2 * 0.02), 0.0)


def adagrad_da(w, g, slots, t):
    # Duchi et al., "Adaptive Subgradient Methods", the primal-dual subgradient update.
    s = slots["s"] = slots.get("s", 0 * w) + g
    a = slots["a"] = slots.get("a", 0 * w + 0.1) + g**2
    shrunk = np.sign(s) * np.maximum(np.abs(s) - 0.05 * t, 0)
    return -LR * shrunk / (0.02 * t * LR + np.sqrt(a))


def proximal(w, g, lr):
    moved = w - lr * g
    return np.sign(moved) * np.maximum(np.abs(moved) - lr * 0.05, 0) / (1 + lr * 0.02)


def proximal_gradient_descent(w, g, slots, t):
    return proximal(w, g, LR)


def proximal_adagrad(w, g, slots, t):
    a = slots["a"] = slots.get("a", 0 * w + 0.1) + g**2
    return proximal(w, g, LR / np.sqrt(a))


REGULARIZED = {"l1_regularization_strength": 0.05, "l2_regularization_strength": 0.02}


CASES = [
    pytest.param(
        gradient_descent,
        lambda: train.GradientDescentOptimizer(LR),
        id="gradient_descent",
        marks=pytest.mark.original_api("tf.train.GradientDescentOptimizer"),
    ),
    pytest.param(
        momentum,
        lambda: train.MomentumOptimizer(LR, 0.9),
        id="momentum",
        marks=pytest.mark.original_api("tf.train.MomentumOptimizer"),
    ),
    pytest.param(
        nesterov,
        lambda: train.MomentumOptimizer(LR, 0.9, use_nesterov=True),
        id="nesterov",
        marks=pytest.mark.original_api("tf.train.MomentumOptimizer"),
    ),
    pytest.param(
        adagrad,
        lambda: train.AdagradOptimizer(LR),
        id="adagrad",
        marks=pytest.mark.original_api("tf.train.AdagradOptimizer"),
    ),
    pytest.param(
        adadelta,
        lambda: train.AdadeltaOptimizer(LR, rho=0.9, epsilon=1e-2),
        id="adadelta",
        marks=pytest.mark.original_api("tf.train.AdadeltaOptimizer"),
    ),
    pytest.param(
        adam,
        lambda: train.AdamOptimizer(LR, beta1=0.8, beta2=0.9, epsilon=1e-3),
        id="adam",
        marks=pytest.mark.original_api("tf.train.AdamOptimizer"),
    ),
    pytest.param(
        rms_prop,
        lambda: train.RMSPropOptimizer(LR, momentum=0.5, epsilon=1e-3),
        id="rms_prop",
        marks=pytest.mark.original_api("tf.train.RMSPropOptimizer"),
    ),
    pytest.param(
        centered_rms_prop,
        lambda: train.RMSPropOptimizer(LR, momentum=0.5, epsilon=1e-3, centered=True),
        id="centered_rms_prop",
        marks=pytest.mark.original_api("tf.train.RMSPropOptimizer"),
    ),
    pytest.param(
        ftrl,
        lambda: train.FtrlOptimizer(LR, **REGULARIZED),
        id="ftrl",
        marks=pytest.mark.original_api("tf.train.FtrlOptimizer"),
    ),
    pytest.param(
        adagrad_da,
        lambda: train.AdagradDAOptimizer(LR, train.get_or_create_global_step(), **REGULARIZED),
        id="adagrad_da",
        marks=pytest.mark.original_api("tf.train.AdagradDAOptimizer"),
    ),
    pytest.param(
        proximal_gradient_descent,
        lambda: train.ProximalGradientDescentOptimizer(LR, **REGULARIZED),
        id="proximal_gradient_descent",
        marks=pytest.mark.original_api("tf.train.ProximalGradientDescentOptimizer"),
    ),
    pytest.param(
        proximal_adagrad,
        lambda: train.ProximalAdagradOptimizer(LR, **REGULARIZED),
        id="proximal_adagrad",
        marks=pytest.mark.original_api("tf.train.ProximalAdagradOptimizer"),
    ),
]


def expected(update, is_sparse):
    """The weights after each step."""
    w, slots, weights = START.copy(), {}, []
    for t, (indices, values) in enumerate(zip(INDICES, VALUES, strict=True), 1):
        g = np.zeros_like(w)
        np.add.at(g, indices, values)
        # A sparse gradient leaves the rows alone that it does not have. Adam is the exception: its
        # averages decay for all rows.
        rows = sorted(set(indices)) if is_sparse and update is not adam else range(len(w))
        rows = list(rows)
        full = {name: value.copy() for name, value in slots.items()}
        part = {name: value[rows] for name, value in slots.items()}
        w[rows] = update(w[rows], g[rows], part, t)
        for name, value in part.items():
            start = {"a": 0.1, "n": 0.1, "s": 1.0}.get(name, 0.0)
            if update in (momentum, nesterov, adadelta) or (update, name) == (adagrad_da, "s"):
                start = 0.0
            slots[name] = full.get(name, np.full_like(w, start))
            slots[name][rows] = value
        weights.append(w.copy())
    return weights


def trained(make_optimizer, is_sparse, target=""):
    """The weights after each step, and the devices of all variables."""
    weights = v1.get_variable("weights", initializer=START.astype(np.float32))
    indices = v1.placeholder(tf.int64, [3])
    values = v1.placeholder(tf.float32, [3, 2])
    gradient = tf.IndexedSlices(values, indices, tf.constant(START.shape, tf.int64))
    if not is_sparse:
        gradient = tf.convert_to_tensor(gradient)
    optimizer = make_optimizer()
    assert isinstance(optimizer, train.Optimizer)
    step = train.get_or_create_global_step()
    update = optimizer.apply_gradients([(gradient, weights)], global_step=step)
    seen = []
    with v1.Session(target) as session:
        session.run(v1.global_variables_initializer())
        for feed in zip(INDICES, VALUES, strict=True):
            session.run(update, dict(zip((indices, values), feed, strict=True)))
            seen.append(session.run(weights))
        assert session.run(step) == len(INDICES)
    return seen, {variable.device for variable in v1.global_variables()}


@pytest.mark.parametrize("is_sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize(("update", "make_optimizer"), CASES)
def test_updates_are_those_of_the_formula(update, make_optimizer, is_sparse):
    weights, _ = trained(make_optimizer, is_sparse)
    np.testing.assert_allclose(weights, expected(update, is_sparse), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("is_sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize(("update", "make_optimizer"), CASES)
def test_a_parameter_server_makes_the_same_updates(update, make_optimizer, is_sparse, cluster):
    with v1.device(train.replica_device_setter(cluster=cluster.spec)):
        weights, devices = trained(make_optimizer, is_sparse, cluster.worker.target)
    np.testing.assert_allclose(weights, expected(update, is_sparse), rtol=1e-5, atol=1e-6)
    assert devices == {"/job:ps/task:0"}


@pytest.mark.original_api("tf.train.Optimizer", "tf.train.GradientDescentOptimizer")
def test_minimize_differentiates_the_loss_and_counts_steps():
    weight = v1.get_variable("weight", initializer=5.0)
    step = train.get_or_create_global_step()
    optimizer = train.GradientDescentOptimizer(0.25)
    pairs = optimizer.compute_gradients(tf.square(weight))
    assert [variable is weight for _, variable in pairs] == [True]
    update = optimizer.minimize(tf.square(weight), global_step=step)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        assert session.run(pairs[0][0]) == 10.0
        session.run(update)
        assert session.run([weight, step]) == [2.5, 1]


@pytest.mark.original_api("tf.train.Optimizer", "tf.train.AdamOptimizer")
def test_slots_are_variables_that_a_checkpoint_holds(tmp_path):
    weight = v1.get_variable("weight", initializer=5.0)
    optimizer = train.AdamOptimizer(0.1)
    update = optimizer.minimize(tf.square(weight))
    assert sorted(optimizer.get_slot_names()) == ["m", "v"]
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        session.run(update)
        path = train.Saver().save(session, str(tmp_path / "model"))
        moment = session.run(optimizer.get_slot(weight, "m"))
    assert train.load_variable(path, "weight/Adam") == moment == pytest.approx(1.0)


@pytest.mark.original_api("tf.train.Optimizer")
def test_gradients_of_a_lookup_are_sparse_and_train_the_rows_that_were_looked_up():
    table = v1.get_variable("table", initializer=tf.ones([4, 2]))
    loss = tf.reduce_sum(tf.nn.embedding_lookup(table, [1, 3, 3]))
    optimizer = train.GradientDescentOptimizer(0.5)
    [(gradient, _)] = optimizer.compute_gradients(loss)
    assert isinstance(gradient, tf.IndexedSlices)
    update = optimizer.minimize(loss)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        session.run(update)
        assert session.run(table).tolist() == [[1, 1], [0.5, 0.5], [1, 1], [0, 0]]
