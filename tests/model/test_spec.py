"""The arguments and results of a build function."""

import pytest

from paramserve.errors import UsageError
from paramserve.model.spec import TaskContext, TrainSpec


def test_a_spec_needs_a_way_to_train_and_only_one():
    with pytest.raises(UsageError, match="either optimizer= or train_op=, got neither"):
        TrainSpec(loss=1.0)
    with pytest.raises(UsageError, match="either optimizer= or train_op=, got both"):
        TrainSpec(loss=1.0, optimizer="an optimizer", train_op="an op")
    with pytest.raises(UsageError, match=r"train_op is a list, .* give tf\.group"):
        TrainSpec(loss=1.0, train_op=["an op", "another"])
    assert TrainSpec(loss=1.0, train_op="an op").examples == 1
    assert TrainSpec(loss=1.0, optimizer="an optimizer").metrics == {}


def test_everything_about_a_spec_is_said_by_name():
    with pytest.raises(TypeError):
        TrainSpec(1.0, "an optimizer")


@pytest.mark.parametrize(("role", "is_chief"), [("chief", True), ("worker", False)])
def test_a_task_knows_whether_it_is_the_chief(role, is_chief):
    assert TaskContext(role, 0).is_chief is is_chief


def test_two_specs_do_not_share_their_defaults():
    first, second = (TrainSpec(loss=1.0, train_op="an op") for _ in range(2))
    assert first.metrics is not second.metrics
    assert TaskContext().params is not TaskContext().params
