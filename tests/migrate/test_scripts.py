"""Whole scripts in the styles in which they were written, and their migrated text."""

import ast

import pytest

from paramserve.migrate import migrate_source
from paramserve.migrate.names import format_findings

COMPLETE = ["logistic", "graph_actions", "slim_train", "pruning_cifar", "replicas", "queues"]
SCRIPTS = [*COMPLETE, "aliases", "left", "eager"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_becomes_what_it_should(old_script, new_script, name):
    migration = migrate_source(old_script(name))
    assert migration.after == new_script(name)
    ast.parse(migration.after)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_second_run_changes_nothing(new_script, name):
    migration = migrate_source(new_script(name))
    assert migration.after == migration.before


@pytest.mark.parametrize("name", SCRIPTS)
def test_lines_that_do_not_change_stay_as_they_are(old_script, new_script, name):
    old, new = (text(name).splitlines() for text in (old_script, new_script))
    touched = ("tensorflow", "tf.", "paramserve", "contrib", "slim")
    kept = [line for line in old if not any(word in line for word in touched)]
    remaining = iter(new)
    assert all(line in remaining for line in kept)


@pytest.mark.parametrize("name", [*COMPLETE, "eager"])
def test_nothing_is_left_of_a_script_whose_names_all_have_places(old_script, name):
    assert migrate_source(old_script(name)).findings == ()


def test_what_is_left_is_listed_with_its_place_and_a_remedy(old_script):
    lines = format_findings("left.py", migrate_source(old_script("left")).findings)
    expected = [
        ("3:49: tensorflow.examples.tutorials.mnist.input_data", "tf.data"),
        ("4:40: tensorflow.python.training.session_run_hook", "use the public name"),
        (
            "5:45: tensorflow.python.training.adam.AdamOptimizer",
            "use paramserve.train.AdamOptimizer",
        ),
        ("6:1: tf.contrib.layers.*", "import the names that are used"),
        ("11:35: tf.contrib.seq2seq", "in a string: has no successor"),
        ("15:10: tf.contrib.slim.arg_scope", "use tf.layers"),
        ("15:26: tf.contrib.slim.conv2d", "(also 16:15)"),
        ("17:11: tf.layers.dense", "TF_USE_LEGACY_KERAS=1"),
        ("18:11: tf.contrib.layers.batch_norm", "use tf.layers"),
        ("19:12: tf.contrib.rnn.BasicLSTMCell", "use tf.nn.rnn_cell"),
        ("20:13: tf.nn.rnn_cell.MultiRNNCell", "TF_USE_LEGACY_KERAS=1"),
        ("21:17: tf.estimator.Estimator", "paramserve.contrib.training.train"),
        ("22:20: tf", "by hand"),
        ("23:18: tf.train", "by hand"),
        ("24:15: tf.mul", "use tf.multiply"),
        ("25:69: tf.contrib.learn.Estimator", "paramserve.contrib.training.train"),
    ]
    assert [line.partition(": ")[0] for line in lines] == [
        f"left.py:{place.partition(': ')[0]}" for place, _ in expected
    ]
    for line, (place, remedy) in zip(lines, expected, strict=True):
        assert line.startswith(f"left.py:{place}: ")
        assert remedy in line


def test_what_cannot_be_followed_is_listed(old_script):
    findings = migrate_source(old_script("aliases")).findings
    assert [(each.line, each.name) for each in findings] == [
        (14, "tf.contrib.learn.monitors.*"),
        (48, "tf.contrib.training.train"),
        (54, "tf.train.Saver"),
        (64, "tf.contrib.training.train"),
        (67, "tf.train"),
    ]
    assert "`module` has other values too" in findings[1].remedy
    assert findings[2].remedy == "in a string: use paramserve.train.Saver"


def test_the_same_is_left_after_rewriting(old_script, new_script):
    """The list is that of --write."""
    for name in ("left", "aliases"):
        before = migrate_source(old_script(name)).findings
        after = migrate_source(new_script(name)).findings
        assert [(each.name, each.remedy) for each in after] == [
            (each.name, each.remedy) for each in before
        ]
