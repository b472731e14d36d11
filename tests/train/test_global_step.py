"""The global step: made, found, checked and read."""

import pytest
import tensorflow as tf

from paramserve import train

v1 = tf.compat.v1


def value_of(*fetches):
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        return [session.run(fetch) for fetch in fetches]


@pytest.mark.original_api(
    "tf.train.create_global_step",
    "tf.train.get_global_step",
    "tf.train.get_or_create_global_step",
)
def test_it_is_made_once_and_found_afterwards(graph):
    assert train.get_global_step() is None
    step = train.get_or_create_global_step()
    assert train.get_global_step() is train.get_or_create_global_step() is step
    assert train.get_global_step(graph) is step
    assert (step.op.name, step.dtype.base_dtype, step.shape) == ("global_step", tf.int64, [])
    assert step not in v1.trainable_variables()
    assert value_of(step) == [0]
    with pytest.raises(ValueError, match='"global_step" already exists'):
        train.create_global_step()


@pytest.mark.original_api("tf.train.create_global_step", "tf.train.get_global_step")
def test_it_can_be_made_in_another_graph():
    other = tf.Graph()
    step = train.create_global_step(other)
    assert train.get_global_step(other) is step
    assert train.get_global_step() is None


@pytest.mark.original_api("tf.train.get_global_step", "tf.train.get_or_create_global_step")
@pytest.mark.parametrize("use_resource", [True, False])
def test_a_variable_of_the_users_is_found_by_its_name(use_resource, graph):
    step = v1.get_variable("global_step", initializer=5, use_resource=use_resource)
    assert train.get_global_step() is step
    assert not graph.get_collection(v1.GraphKeys.GLOBAL_STEP)
    assert train.get_or_create_global_step() is step
    # Now TensorFlow's own hooks find it.
    assert v1.train.get_global_step() is step
    with pytest.raises(ValueError, match="already exists"):
        train.create_global_step()


@pytest.mark.original_api("tf.train.assert_global_step")
@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: v1.get_variable("step", [1], tf.int64), "is not scalar"),
        (lambda: v1.get_variable("step", [], tf.float32), "does not have integer type"),
        (lambda: 7, "must be a Variable or Tensor"),
    ],
)
def test_what_cannot_be_one_is_refused_with_the_remedy(make, complaint):
    with pytest.raises(TypeError, match=f"{complaint}.*get_or_create_global_step"):
        train.assert_global_step(make())


@pytest.mark.original_api("tf.train.assert_global_step")
def test_scalars_of_integer_types_can_be_one():
    train.assert_global_step(train.get_or_create_global_step())
    train.assert_global_step(tf.constant(3, tf.int32))


@pytest.mark.original_api("tf.train.global_step")
@pytest.mark.parametrize("use_resource", [True, False])
def test_its_value_is_an_int(use_resource):
    with v1.variable_scope("", use_resource=use_resource):
        step = train.create_global_step()
    with v1.Session() as session:
        session.run(step.initializer)
        session.run(step.assign_add(3))
        for fetch in (step, "global_step:0", "global_step"):
            value = train.global_step(session, fetch)
            assert (value, type(value)) == (3, int)


@pytest.mark.original_api("tf.train.global_step")
def test_one_that_is_no_scalar_has_no_value():
    step = v1.get_variable("step", initializer=[4])
    with v1.Session() as session:
        session.run(step.initializer)
        with pytest.raises(TypeError, match=r"'step:0' is not scalar, it has the shape \(1,\)"):
            train.global_step(session, step)
