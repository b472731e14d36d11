"""The facade: every documented name, with TensorFlow's arguments in TensorFlow's order."""

import inspect
import re
from pathlib import Path

import pytest
import tensorflow as tf

from paramserve import train

SEED = Path(__file__).parents[1] / "data/seeds/003_e528bd8d9f9c138c.txt"

REPLACED = sorted(
    name
    for name in set(train.__all__) - {"queue_runner"}
    if getattr(train, name) is not getattr(tf.compat.v1.train, name)
)


def test_every_documented_name_is_there_and_no_other():
    documented = re.findall(r"^\[`(?:class )?(\w+)", SEED.read_text(), re.M)
    assert len(documented) == 114
    assert sorted(train.__all__) == sorted(documented)
    assert all(hasattr(train, name) for name in documented)


@pytest.mark.parametrize("name", REPLACED)
def test_replacements_take_the_arguments_of_tensorflow(name):
    theirs = inspect.signature(getattr(tf.compat.v1.train, name)).parameters
    ours = inspect.signature(getattr(train, name)).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    for argument in list(ours.values())[len(theirs) :]:
        assert argument.kind is argument.KEYWORD_ONLY
    for argument in set(theirs) - {"recovery_wait_secs"}:
        # An `object()` is a default that is looked up later.
        if type(theirs[argument].default) is not object:
            assert ours[argument].default == theirs[argument].default, argument


@pytest.mark.parametrize("name", REPLACED)
def test_replacements_are_documented_in_words_of_their_own(name):
    assert getattr(train, name).__doc__ != getattr(tf.compat.v1.train, name).__doc__


@pytest.mark.original_api("tf.train.queue_runner")
def test_queue_runner_is_a_module_too():
    assert inspect.ismodule(train.queue_runner)
    for name in ("QueueRunner", "add_queue_runner", "start_queue_runners"):
        assert getattr(train.queue_runner, name) is getattr(train, name)
    assert train.queue_runner.__all__ == ["QueueRunner", "add_queue_runner", "start_queue_runners"]
