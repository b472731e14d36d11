"""The one-line form of an error: the reason, the op, and the user's own file and line."""

import inspect
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from paramserve.cluster.session import BoundedCloseSession
from paramserve.errors import JobFailed, UsageError
from paramserve.reasons import MOST_CHARS, as_failure, describe, reason_of

v1 = tf.compat.v1

GATHER = "indices = 5 is not in [0, 2)"


def five():
    """Makes a value known only when the graph runs, so that no error comes earlier."""
    return v1.placeholder_with_default(5, [])


def pick(index):
    return tf.gather([1.0, 2.0], index)  # Here the gathering ops are made.


def fail(*_):
    raise KeyError("no such user")  # Here the callbacks fail.


def line_of(function, text):
    lines, first = inspect.getsourcelines(function)
    return f"{__file__}:{first + next(i for i, line in enumerate(lines) if text in line)}"


PICKED = line_of(pick, "gather")
RAISED = line_of(fail, "raise")


@pytest.fixture(autouse=True)
def _new_graph():
    was_v2 = v1.control_flow_v2_enabled()
    with tf.Graph().as_default():
        yield
    (v1.enable_control_flow_v2 if was_v2 else v1.disable_control_flow_v2)()


def error_of(fetches, *, prepare=None):
    with BoundedCloseSession() as session:
        if prepare is not None:
            session.run(prepare)
        with pytest.raises(tf.errors.OpError) as caught:
            session.run(fetches)
    return caught.value


def batches(dataset):
    return v1.data.make_one_shot_iterator(dataset).get_next()


class TestOfAnOpItSays:
    def test_the_reason_the_op_and_where_it_was_made(self):
        loss = pick(five()) * 2.0
        message = f"InvalidArgumentError: {GATHER} (op 'GatherV2', made at {PICKED})"
        assert describe(error_of(loss)) == message

    def test_the_same_if_the_run_was_prepared(self):
        loss = pick(five())
        with BoundedCloseSession() as session:
            run = session.make_callable(loss)
            with pytest.raises(tf.errors.InvalidArgumentError) as caught:
                run()
        assert f"{GATHER} (op 'GatherV2', made at {PICKED})" in describe(caught.value)

    def test_the_same_of_a_session_that_is_not_ours(self):
        with v1.Session() as session, pytest.raises(tf.errors.OpError) as caught:
            session.run(pick(five()))
        assert f"{GATHER} (op 'GatherV2', made at {PICKED})" in describe(caught.value)

    def test_of_a_gradient_that_is_made_for_the_user_the_op_of_the_model(self):
        model = pick(five()).op
        gradient = SimpleNamespace(name="gradients/x", traceback=[], _original_op=model)
        error = tf.errors.InvalidArgumentError(None, gradient, "no such row")
        assert describe(error) == (
            f"InvalidArgumentError: no such row (op 'gradients/x' for 'GatherV2', made at {PICKED})"
        )

    def test_of_several_errors_the_first(self):
        index = five()
        assert GATHER in describe(error_of([pick(index), pick(index)]))

    @pytest.mark.parametrize("version", [1, 2])
    def test_what_a_branch_of_a_condition_was_made_of(self, version):
        (v1.enable_control_flow_v2 if version == 2 else v1.disable_control_flow_v2)()
        index = five()
        branch = tf.cond(index > 3, lambda: pick(index), lambda: 0.0)
        assert f"GatherV2', made at {PICKED})" in describe(error_of(branch))

    def test_what_a_tf_function_was_made_of(self):
        message = describe(error_of(tf.function(pick)(five())))
        assert message == f"InvalidArgumentError: {GATHER} (op 'GatherV2', made at {PICKED})"

    def test_the_function_of_a_dataset_even_if_the_model_has_an_op_of_that_name(self):
        assert pick(five()).op.name == "GatherV2"
        numbers = batches(tf.data.Dataset.range(5, 6).map(pick).batch(1).prefetch(1))
        assert f"{GATHER} (op 'GatherV2', made at {PICKED})" in describe(error_of(numbers))

    def test_both_functions_of_a_dataset_that_it_may_be(self):
        def other(index):
            return tf.cast(tf.gather([1.0, 2.0], index), tf.int64)

        numbers = batches(tf.data.Dataset.range(5, 6).map(other).map(pick))
        message = describe(error_of(numbers))
        assert PICKED in message
        assert line_of(other, "gather") in message

    def test_what_a_variable_or_table_was_initialized_with(self):
        v1.get_variable("w", initializer=lambda: pick(five()))
        message = describe(error_of(v1.global_variables_initializer()))
        assert f"(op 'w/Initializer/GatherV2', made at {PICKED})" in message

        table = tf.lookup.TextFileInitializer("/no/words.txt", tf.string, 0, tf.int64, 1)
        tf.lookup.StaticHashTable(table, -1)
        message = describe(error_of(v1.tables_initializer()))
        assert message.startswith("NotFoundError: /no/words.txt; No such file or directory (op ")
        assert f"made at {__file__}:" in message


class TestOfAPythonFunctionOfTheGraphItSays:
    @pytest.mark.parametrize("wrap", [tf.numpy_function, tf.py_function])
    def test_what_it_raised_and_where(self, wrap):
        called = wrap(fail, [1.0], tf.float32)
        message = describe(error_of(called))
        assert message.startswith(f"KeyError: 'no such user' (raised at {RAISED}; op '")
        assert message.endswith(f"made at {__file__}:{inspect.currentframe().f_lineno - 3})")

    def test_the_same_in_a_map(self):
        def call(number):
            return tf.numpy_function(fail, [number], tf.float32)

        message = describe(error_of(batches(tf.data.Dataset.range(3).map(call))))
        made = line_of(call, "numpy_function")
        assert message == (
            f"KeyError: 'no such user' (raised at {RAISED}; op 'PyFunc', made at {made})"
        )

    def test_the_same_of_a_generator(self):
        def generate():
            yield 1
            fail()

        spec = tf.TensorSpec([], tf.int32)
        numbers = tf.data.Dataset.from_generator(generate, output_signature=spec).batch(2)
        assert describe(error_of(batches(numbers))).startswith(
            f"KeyError: 'no such user' (raised at {RAISED}"
        )


class TestOfABuildItSays:
    def test_the_users_own_line(self):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            np.zeros(3).reshape(2, 2)
        line = inspect.currentframe().f_lineno - 1
        assert describe(caught.value) == (
            f"ValueError: cannot reshape array of size 3 into shape (2,2) ({__file__}:{line})"
        )

    def test_the_error_below_the_traceback_of_autograph(self):
        def parse(number):
            if number > 2:
                return tf.zeros([2]) + tf.zeros([3])
            return tf.zeros([2])

        with pytest.raises(ValueError) as caught:  # noqa: PT011
            tf.data.Dataset.range(3).map(parse)
        message = describe(caught.value)
        assert message.startswith("ValueError: Dimensions must be equal, but are 2 and 3")
        assert f"{__file__}:" in message
        assert "__autograph_generated_file" not in message

    def test_the_cause_that_keras_puts_between_words_of_its_own(self):
        class Odd(keras.layers.Layer):
            def call(self, inputs):
                return tf.zeros([2]) + tf.zeros([3])

        with pytest.raises(ValueError) as caught:  # noqa: PT011
            Odd()(tf.zeros([1, 2]))
        message = describe(caught.value)
        assert "Dimensions must be equal, but are 2 and 3" in message
        assert "\n" not in message
        assert "Arguments received" not in message


def test_all_lines_of_a_message_are_in_the_one():
    assert (
        describe(RuntimeError("columns differ:\n  a\n  b")) == "RuntimeError: columns differ: a b"
    )
    assert describe(KeyError()) == "KeyError: "
    assert reason_of(KeyError()) == "KeyError"
    long = describe(ValueError("x" * 3 * MOST_CHARS))
    assert len(long) < MOST_CHARS + 50
    assert long.endswith(" ...")


def test_a_failure_keeps_the_whole_text_for_the_log(caplog):
    error = error_of(pick(five()))
    failure = as_failure("training failed", error)
    assert isinstance(failure, JobFailed)
    assert str(failure).startswith(f"training failed: InvalidArgumentError: {GATHER} (op ")
    assert "Original stack trace for 'GatherV2'" in caplog.text
    usage = UsageError("--ps 0: expected at least 1")
    assert as_failure("training failed", usage) is usage
