"""Eager habits in a build function: each is refused in one sentence with the remedy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from paramserve.errors import UsageError
from paramserve.model.spec import TrainSpec

v1 = tf.compat.v1
layers = keras.layers

X = np.ones([8, 2], np.float32)
Y = np.ones([8, 1], np.float32)


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)


def compiled():
    model = keras.Sequential([layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def building(do):
    """A build function that does something first, and would train if that went well."""

    def build(task):
        do()
        model = compiled()
        loss = tf.reduce_mean((model(X) - Y) ** 2)
        optimizer = v1.train.GradientDescentOptimizer(0.1)
        return TrainSpec(loss=loss, optimizer=optimizer, keras_model=model)

    return build


HABITS = {
    "Normalization.adapt": (lambda: layers.Normalization().adapt(X), "mean= and variance="),
    "Discretization.adapt": (lambda: layers.Discretization(2).adapt(X), "bin_boundaries="),
    "StringLookup.adapt": (lambda: layers.StringLookup().adapt(["a"]), "vocabulary="),
    "IntegerLookup.adapt": (lambda: layers.IntegerLookup().adapt([1]), "vocabulary="),
    "TextVectorization.adapt": (lambda: layers.TextVectorization().adapt(["a"]), "vocabulary="),
    "FeatureSpace.adapt": (
        lambda: keras.utils.FeatureSpace({"word": "string_categorical"}).adapt(
            tf.data.Dataset.from_tensor_slices({"word": ["a"]})
        ),
        "vocabulary=",
    ),
    "fit": (lambda: compiled().fit(X, Y), "return TrainSpec"),
    "fit of a dataset": (lambda: compiled().fit(dataset()), "return TrainSpec"),
    "train_on_batch": (lambda: compiled().train_on_batch(X, Y), "return TrainSpec"),
    "evaluate": (lambda: compiled().evaluate(X, Y), "TrainSpec.evaluate"),
    "test_on_batch": (lambda: compiled().test_on_batch(X, Y), "TrainSpec.evaluate"),
    "predict": (lambda: compiled().predict(X), r"model\(inputs\)"),
    "predict_on_batch": (lambda: compiled().predict_on_batch(X), r"model\(inputs\)"),
    "iter": (lambda: next(iter(dataset())), "make_one_shot_iterator"),
    "for": (lambda: [x for x, _ in dataset()], "make_one_shot_iterator"),
    "as_numpy_iterator": (lambda: list(dataset().as_numpy_iterator()), "make_one_shot_iterator"),
}


@pytest.mark.parametrize(("do", "remedy"), HABITS.values(), ids=HABITS)
def test_a_call_that_needs_values_is_refused_with_its_place_and_the_remedy(build_graph, do, remedy):
    place = r"test_eager_calls\.py:\d+\)"
    with pytest.raises(UsageError, match=rf"{place} needs values, .* as a graph: .*{remedy}"):
        build_graph(building(do))


def test_in_functions_of_a_dataset_iteration_is_what_it_was(build_graph):
    def iterate():
        def first_of(number):
            return next(iter(tf.data.Dataset.range(number, number + 2)))

        v1.data.make_one_shot_iterator(tf.data.Dataset.range(3).map(first_of)).get_next()

    build_graph(building(iterate))


def test_outside_of_a_build_function_all_of_it_works(build_graph):
    build_graph(building(lambda: None))
    assert len(list(dataset())) == 2
    model = compiled()
    model.fit(dataset(), verbose=0)
    assert model.predict(X, verbose=0).shape == (8, 1)
    lookup = layers.StringLookup()
    lookup.adapt(["a", "a", "b"])
    assert lookup.get_vocabulary() == ["[UNK]", "a", "b"]
