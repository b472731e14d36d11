"""`ExponentialMovingAverage`."""

import pytest
import tensorflow as tf

from paramserve import train

v1 = tf.compat.v1

pytestmark = pytest.mark.original_api("tf.train.ExponentialMovingAverage")


@pytest.mark.parametrize("use_resource", [True, False])
def test_the_average_follows_its_formula(use_resource):
    weight = v1.get_variable("weight", initializer=10.0, use_resource=use_resource)
    averages = train.ExponentialMovingAverage(0.9)
    update = averages.apply([weight])
    average = averages.average(weight)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        assert session.run(average) == 10.0
        expected = 10.0
        for value in (4.0, 2.0, 0.0):
            session.run(weight.assign(value))
            session.run(update)
            expected = 0.9 * expected + 0.1 * value
            assert session.run(average) == pytest.approx(expected)


@pytest.mark.parametrize("use_resource", [True, False])
def test_an_average_made_late_starts_at_the_variables_value(use_resource):
    weight = v1.get_variable("weight", initializer=10.0, use_resource=use_resource)
    averages = train.ExponentialMovingAverage(0.9)
    averages.apply()
    average = averages.average(weight)
    with v1.Session() as session:
        session.run(weight.initializer)
        session.run(weight.assign(3.0))
        session.run(average.initializer)
        assert session.run(average) == 3.0
    assert average not in v1.trainable_variables()
    assert v1.moving_average_variables() == [weight]


def test_few_updates_lower_the_decay():
    weight = v1.get_variable("weight", initializer=10.0)
    averages = train.ExponentialMovingAverage(0.999, num_updates=tf.constant(8))
    update = averages.apply([weight])
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        session.run(weight.assign(0.0))
        session.run(update)
        assert session.run(averages.average(weight)) == pytest.approx(10.0 * (1 + 8) / (10 + 8))


def test_averages_of_tensors_start_at_0_and_may_be_corrected():
    number = v1.placeholder_with_default(3.0, [])
    plain, corrected = (
        train.ExponentialMovingAverage(0.9, zero_debias=zero_debias, name=f"average{zero_debias}")
        for zero_debias in (False, True)
    )
    update = tf.group(plain.apply([number]), corrected.apply([number]))
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        session.run(update)
        assert session.run(plain.average(number)) == pytest.approx(0.3)
        assert session.run(corrected.average(number)) == pytest.approx(3.0)


@pytest.mark.parametrize("use_resource", [True, False])
def test_averages_are_restored_in_place_of_the_weights(use_resource, tmp_path):
    weight = v1.get_variable("scope/weight", initializer=10.0, use_resource=use_resource)
    averages = train.ExponentialMovingAverage(0.5)
    update = averages.apply([weight])
    assert averages.average_name(weight) == "scope/weight/ExponentialMovingAverage"
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        session.run(weight.assign(0.0))
        session.run(update)
        path = train.Saver().save(session, str(tmp_path / "model"))
        restored = averages.variables_to_restore()
        assert list(restored) == ["scope/weight/ExponentialMovingAverage"]
        train.Saver(restored).restore(session, path)
        assert session.run(weight) == 5.0


def test_integers_have_no_average():
    count = v1.get_variable("count", initializer=1, use_resource=False)
    with pytest.raises(TypeError, match="half, float, or double"):
        train.ExponentialMovingAverage(0.5).apply([count])


def test_averages_are_where_the_variables_are(cluster):
    with v1.device(train.replica_device_setter(cluster=cluster.spec)):
        weights = [
            v1.get_variable(str(use_resource), initializer=2.0, use_resource=use_resource)
            for use_resource in (True, False)
        ]
        averages = train.ExponentialMovingAverage(0.5)
        update = averages.apply(weights)
    made = [averages.average(weight) for weight in weights]
    assert [average.device for average in made] == ["/job:ps/task:0"] * 2
    with v1.Session(cluster.worker.target) as session:
        session.run(v1.global_variables_initializer())
        session.run([weight.assign(0.0) for weight in weights])
        session.run(update)
        assert session.run(made) == [1.0, 1.0]
