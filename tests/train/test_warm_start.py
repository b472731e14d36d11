"""`warm_start` and `VocabInfo`: a model starts with another's weights, its vocabulary changed."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve import train

v1 = tf.compat.v1

pytestmark = pytest.mark.original_api("tf.train.warm_start", "tf.train.VocabInfo")


@pytest.fixture
def trained(tmp_path):
    """A checkpoint with embeddings of the words a and b, and a bias."""
    (tmp_path / "old").write_text("a\nb\n")
    (tmp_path / "new").write_text("b\nc\na\n")
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("embedding", initializer=[[1.0, 1.5], [2.0, 2.5]])
        v1.get_variable("bias", initializer=[3.0])
        session.run(v1.global_variables_initializer())
        return train.Saver().save(session, str(tmp_path / "model"))


def started(*variables):
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        return session.run(list(variables))


def vocabulary(tmp_path, **kwargs):
    arguments = {"new_vocab_size": 3, "num_oov_buckets": 1, **kwargs}
    return train.VocabInfo(
        new_vocab=str(tmp_path / "new"), old_vocab=str(tmp_path / "old"), **arguments
    )


def test_variables_with_the_same_names_start_with_the_old_values(trained):
    bias = v1.get_variable("bias", [1])
    other = v1.get_variable("other", initializer=[9.0])
    train.warm_start(trained, vars_to_warm_start=["bias"])
    assert [value.tolist() for value in started(bias, other)] == [[3.0], [9.0]]


def test_names_may_differ(trained):
    offset = v1.get_variable("offset", [1])
    train.warm_start(trained, "offset", var_name_to_prev_var_name={"offset": "bias"})
    assert started(offset)[0].tolist() == [3.0]


@pytest.mark.parametrize("use_resource", [True, False])
@pytest.mark.parametrize(
    "initializer",
    [
        None,
        v1.zeros_initializer(),
        v1.constant_initializer(0.5),
        tf.constant_initializer(0.5),
        v1.glorot_uniform_initializer(),
        v1.random_uniform_initializer(0.0, 1.0),
    ],
    ids=lambda initializer: (
        type(initializer).__module__.split(".")[-1] + type(initializer).__name__
    ),
)
def test_rows_move_with_their_words_and_new_words_are_initialized(
    trained, tmp_path, initializer, use_resource
):
    embedding = v1.get_variable("embedding", [4, 2], use_resource=use_resource)
    info = vocabulary(tmp_path, backup_initializer=initializer)
    assert info.backup_initializer is initializer
    train.warm_start(trained, var_name_to_vocab_info={"embedding": info})
    [value] = started(embedding)
    assert value[[0, 2]].tolist() == [[2.0, 2.5], [1.0, 1.5]]
    added = value[[1, 3]]
    if initializer is None or isinstance(initializer, v1.zeros_initializer):
        assert not added.any()
    elif "onstant" in type(initializer).__name__:
        assert (added == 0.5).all()
    else:
        assert np.unique(added).size == 4
        # Glorot's limit is sqrt(6 / (rows + columns)).
        assert (np.abs(added) <= np.sqrt(6 / 3)).all()


def test_columns_can_have_a_vocabulary_too(tmp_path):
    (tmp_path / "old").write_text("x\ny\n")
    (tmp_path / "new").write_text("y\nz\n")
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("kernel", initializer=[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        session.run(v1.global_variables_initializer())
        checkpoint = train.Saver().save(session, str(tmp_path / "model"))
    kernel = v1.get_variable("kernel", [3, 2])
    info = vocabulary(
        tmp_path,
        new_vocab_size=2,
        num_oov_buckets=0,
        backup_initializer=v1.constant_initializer(9.0),
        axis=1,
    )
    train.warm_start(checkpoint, var_name_to_vocab_info={"kernel": info})
    assert started(kernel)[0].tolist() == [[2, 9], [4, 9], [6, 9]]


def test_only_rows_and_columns_have_vocabularies(tmp_path):
    with pytest.raises(ValueError, match="axis"):
        vocabulary(tmp_path, axis=2)


def test_a_partitioned_variable_is_started_part_by_part(trained, tmp_path):
    embedding = v1.get_variable(
        "embedding", [4, 2], partitioner=v1.fixed_size_partitioner(2), use_resource=True
    )
    info = vocabulary(tmp_path, backup_initializer=v1.constant_initializer(0.5))
    train.warm_start(trained, var_name_to_vocab_info={"embedding": info})
    first, second = started(*embedding)
    assert first.tolist() == [[2.0, 2.5], [0.5, 0.5]]
    assert second.tolist() == [[1.0, 1.5], [0.5, 0.5]]


def test_a_name_that_is_not_used_is_an_error(trained, tmp_path):
    v1.get_variable("bias", [1])
    with pytest.raises(ValueError, match="misspelled"):
        train.warm_start(trained, var_name_to_vocab_info={"embeding": vocabulary(tmp_path)})
