"""The mapping of names: complete, true, and in step with the guide."""

import importlib
import re
from pathlib import Path

import pytest

from paramserve.migrate import NAMESPACES, place
from paramserve.migrate.names import canonical, module_place, updated

ROOT = Path(__file__).parents[2]
TRAIN = next(each for each in NAMESPACES if each.old == "tf.train")


@pytest.mark.parametrize("namespace", NAMESPACES, ids=lambda each: each.old)
def test_every_new_name_is_there(namespace):
    module = importlib.import_module(namespace.new)
    assert [name for name in namespace.names if not hasattr(module, name)] == []


def test_modules_are_found_below_their_packages():
    """`from paramserve.contrib import slim` needs it, with `slim.learning.train` after it."""
    for namespace in NAMESPACES:
        package, _, name = namespace.new.rpartition(".")
        importlib.import_module(package)
        assert package == "paramserve.contrib" or hasattr(importlib.import_module(package), name)


def test_all_of_tf_train_is_placed():
    seed = next((ROOT / "tests/data/seeds").glob("003_*")).read_text()
    documented = set(re.findall(r"\[`(?:class )?(\w+)(?:\(\.\.\.\))?`\]", seed))
    assert len(documented) == 114
    assert {*TRAIN.names, "queue_runner"} == documented
    assert module_place("tf.train.queue_runner") == "paramserve.train.queue_runner"


@pytest.mark.parametrize(
    ("path", "new"),
    [
        ("tensorflow.train.Saver", "paramserve.train.Saver"),
        ("tensorflow.compat.v1.train.Saver", "paramserve.train.Saver"),
        ("tensorflow.contrib.learn.train", "paramserve.contrib.learn.train"),
        (
            "tensorflow.contrib.learn.python.learn.graph_actions.run_n",
            "paramserve.contrib.learn.graph_actions.run_n",
        ),
        (
            "tensorflow.contrib.model_pruning.python.layers.rnn_cells.MaskedLSTMCell",
            "paramserve.contrib.model_pruning.MaskedLSTMCell",
        ),
        (
            "tensorflow.contrib.training.python.training.hparam.HParams",
            "paramserve.contrib.training.HParams",
        ),
        ("tf_slim.learning.train", "paramserve.contrib.slim.learning.train"),
        ("tf_slim.training.training.train", "paramserve.contrib.training.train"),
        ("tensorflow.contrib.slim.get_global_step", "paramserve.train.get_global_step"),
        (
            "tensorflow.contrib.framework.python.ops.variables.create_global_step",
            "paramserve.train.create_global_step",
        ),
        ("tensorflow.estimator.SessionRunHook", "paramserve.train.SessionRunHook"),
    ],
)
def test_a_name_is_found_however_it_was_spelled(path, new):
    found, rest = place(canonical(path))
    assert (found.path, rest) == (new, "")


def test_what_follows_a_name_is_kept_apart():
    found, rest = place("tf.train.Saver.restore")
    assert (found.module, found.name, rest) == ("paramserve.train", "Saver", ".restore")


@pytest.mark.parametrize(
    "path", ["tf.train", "tf.train.CheckpointManager", "tf.contrib.slim.conv2d"]
)
def test_what_has_no_place_is_not_given_one(path):
    assert place(path) is None
    assert module_place(path) is None


def test_the_guide_has_every_name():
    guide = (ROOT / "docs/migrate.md").read_text()
    assert guide == updated(guide), (
        "write paramserve.migrate.names.updated(text) of docs/migrate.md into it"
    )
    for namespace in NAMESPACES:
        for name in namespace.names:
            assert f"| `{namespace.old}.{name}` | `{namespace.new}.{name}` |" in guide
    with pytest.raises(ValueError, match="no '<!-- names"):
        updated("no marks")
