"""Learning rates that decay, against their formulas."""

import math

import numpy as np
import pytest
import tensorflow as tf

from paramserve import train

v1 = tf.compat.v1

STEPS = [0, 1, 7, 10, 15, 20, 33, 100]


def curve(decay):
    """Returns the rate at each of `STEPS`, with the step fed."""
    step = v1.placeholder(tf.int64, [])
    rate = decay(step)
    with v1.Session() as session:
        return [float(session.run(rate, {step: value})) for value in STEPS]


def part(step):
    """Half a cosine over 20 steps."""
    return 0.5 * (1 + math.cos(math.pi * min(step, 20) / 20))


def restarted(step):
    """Returns the rate in cycles of 10, 20, 40, ... steps, each 0.9 times as high."""
    length, height = 10, 1.0
    while step >= length:
        step, length, height = step - length, length * 2, height * 0.9
    return 0.9 * height * 0.5 * (1 + math.cos(math.pi * step / length)) + 0.1


def cycled(step):
    length = 20 * max(1, math.ceil(step / 20))
    return (0.8 - 0.1) * (1 - step / length) ** 2 + 0.1


@pytest.mark.parametrize(
    ("decay", "formula"),
    [
        pytest.param(
            lambda s: train.exponential_decay(0.8, s, 10, 0.5),
            lambda s: 0.8 * 0.5 ** (s / 10),
            marks=pytest.mark.original_api("tf.train.exponential_decay"),
        ),
        pytest.param(
            lambda s: train.exponential_decay(0.8, s, 10, 0.5, staircase=True),
            lambda s: 0.8 * 0.5 ** (s // 10),
            marks=pytest.mark.original_api("tf.train.exponential_decay"),
        ),
        pytest.param(
            lambda s: train.natural_exp_decay(0.8, s, 10, 0.5),
            lambda s: 0.8 * math.exp(-0.5 * s / 10),
            marks=pytest.mark.original_api("tf.train.natural_exp_decay"),
        ),
        pytest.param(
            lambda s: train.inverse_time_decay(0.8, s, 10, 0.5),
            lambda s: 0.8 / (1 + 0.5 * s / 10),
            marks=pytest.mark.original_api("tf.train.inverse_time_decay"),
        ),
        pytest.param(
            lambda s: train.inverse_time_decay(0.8, s, 10, 0.5, staircase=True),
            lambda s: 0.8 / (1 + 0.5 * (s // 10)),
            marks=pytest.mark.original_api("tf.train.inverse_time_decay"),
        ),
        pytest.param(
            lambda s: train.polynomial_decay(0.8, s, 20, 0.1, power=2.0),
            lambda s: (0.8 - 0.1) * (1 - min(s, 20) / 20) ** 2 + 0.1,
            marks=pytest.mark.original_api("tf.train.polynomial_decay"),
        ),
        pytest.param(
            lambda s: train.polynomial_decay(0.8, s, 20, 0.1, power=2.0, cycle=True),
            cycled,
            marks=pytest.mark.original_api("tf.train.polynomial_decay"),
        ),
        pytest.param(
            lambda s: train.piecewise_constant(s, [7, 20], [0.8, 0.4, 0.2]),
            lambda s: 0.8 if s <= 7 else 0.4 if s <= 20 else 0.2,
            marks=pytest.mark.original_api("tf.train.piecewise_constant"),
        ),
        pytest.param(
            lambda s: train.cosine_decay(0.8, s, 20, alpha=0.1),
            lambda s: 0.8 * (0.9 * part(s) + 0.1),
            marks=pytest.mark.original_api("tf.train.cosine_decay"),
        ),
        pytest.param(
            lambda s: train.cosine_decay_restarts(0.8, s, 10, t_mul=2.0, m_mul=0.9, alpha=0.1),
            lambda s: 0.8 * restarted(s),
            marks=pytest.mark.original_api("tf.train.cosine_decay_restarts"),
        ),
        pytest.param(
            lambda s: train.linear_cosine_decay(0.8, s, 20, alpha=0.1, beta=0.01),
            lambda s: 0.8 * ((0.1 + 1 - min(s, 20) / 20) * part(s) + 0.01),
            marks=pytest.mark.original_api("tf.train.linear_cosine_decay"),
        ),
        pytest.param(
            lambda s: train.noisy_linear_cosine_decay(0.8, s, 20, initial_variance=1e-12),
            lambda s: 0.8 * ((1 - min(s, 20) / 20) * part(s) + 0.001),
            marks=pytest.mark.original_api("tf.train.noisy_linear_cosine_decay"),
        ),
    ],
)
def test_the_rate_follows_its_formula(decay, formula):
    np.testing.assert_allclose(curve(decay), [formula(s) for s in STEPS], rtol=1e-4, atol=1e-5)


@pytest.mark.original_api("tf.train.noisy_linear_cosine_decay")
def test_the_noise_shrinks_with_the_steps():
    def spread(step):
        rate = train.noisy_linear_cosine_decay(
            1.0, step, 1000, initial_variance=0.25, variance_decay=1.0
        )
        with v1.Session() as session:
            return np.std([session.run(rate) for _ in range(200)])

    assert spread(0) == pytest.approx(0.5, rel=0.25)
    assert spread(24) == pytest.approx(0.1, rel=0.25)


@pytest.mark.original_api("tf.train.exponential_decay", "tf.train.GradientDescentOptimizer")
def test_an_optimizer_decays_with_the_global_step():
    weight = v1.get_variable("weight", initializer=0.0)
    step = train.get_or_create_global_step()
    optimizer = train.GradientDescentOptimizer(train.exponential_decay(1.0, step, 1, 0.5))
    update = optimizer.minimize(-weight, global_step=step)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        for expected in (1.0, 1.5, 1.75):
            session.run(update)
            assert session.run(weight) == pytest.approx(expected)
