"""The rewriting of single constructions of Python."""

import textwrap

import pytest

from paramserve.errors import UsageError
from paramserve.migrate import migrate_source


def migrated(text, **options):
    """The new text of an indented one; it must not change again."""
    after = migrate_source(textwrap.dedent(text).lstrip("\n"), **options).after
    assert migrate_source(after, **options).after == after
    return after


def lines(text, **options):
    return [line for line in migrated(text, **options).splitlines() if line]


TF = ["import tensorflow.compat.v1 as tf", "tf.disable_v2_behavior()"]

IMPORTS = [
    ("import tensorflow as tf", TF),
    (
        "import tensorflow",
        ["import tensorflow.compat.v1 as tensorflow", "tensorflow.disable_v2_behavior()"],
    ),
    ("import tensorflow.compat.v1 as tf", TF[:1]),
    ("from tensorflow import flags, app", ["from tensorflow.compat.v1 import flags, app"]),
    ("import tensorflow.contrib.slim as slim", []),
    ("from tensorflow.contrib import slim, training", []),
    ("from tensorflow.contrib.layers import conv2d", []),
    (
        "from tensorflow.contrib.training import train",
        ["from paramserve.contrib.training import train"],
    ),
    ("import numpy, tensorflow.contrib.slim as slim", ["import numpy"]),
    ("from . import tensorflow", ["from . import tensorflow"]),
    ("import tensorflow_hub as hub", ["import tensorflow_hub as hub"]),
]


@pytest.mark.parametrize(("old", "new"), IMPORTS, ids=[old for old, _ in IMPORTS])
def test_an_import_that_nothing_uses(old, new):
    assert lines(old) == new


USES = [
    (
        "from tensorflow.contrib import training\ntraining.train(1)",
        ["from paramserve.contrib import training", "training.train(1)"],
    ),
    (
        "from tensorflow.contrib import training as t\nt.train(t.HParams())",
        ["from paramserve.contrib import training as t", "t.train(t.HParams())"],
    ),
    (
        "import tensorflow.contrib.training\ntensorflow.contrib.training.train(tensorflow.one)",
        [
            "import paramserve.contrib.training",
            "import tensorflow.compat.v1 as tensorflow",
            "tensorflow.disable_v2_behavior()",
            "paramserve.contrib.training.train(tensorflow.one)",
        ],
    ),
    (
        "import tf_slim as slim\nslim.learning.train(1)",
        ["import paramserve.contrib.slim as slim", "slim.learning.train(1)"],
    ),
    (
        "from tensorflow.contrib.framework import get_global_step as step\nstep()",
        ["from paramserve.train import get_global_step as step", "step()"],
    ),
    (
        "from tensorflow.contrib import framework\nframework.get_global_step()",
        ["import paramserve.train", "paramserve.train.get_global_step()"],
    ),
    (
        "from tensorflow.contrib import slim, rnn\nslim.learning.train(rnn.Cell)",
        [
            "from tensorflow.contrib import rnn",
            "from paramserve.contrib import slim",
            "slim.learning.train(rnn.Cell)",
        ],
    ),
]


@pytest.mark.parametrize(("old", "new"), USES, ids=[old.splitlines()[0] for old, _ in USES])
def test_an_import_and_its_use(old, new):
    assert lines(old) == new


def test_an_alias_stays_an_alias():
    assert lines(
        """
        import tensorflow as tf
        learn = tf.contrib.learn
        learn.train(learn.monitors.EveryN())
        """
    ) == [
        "import paramserve.contrib.learn",
        "import paramserve.contrib.learn.monitors",
        *TF,
        "learn = paramserve.contrib.learn",
        "learn.train(learn.monitors.EveryN())",
    ]


def test_an_alias_that_nobody_needs_any_more_goes():
    assert lines(
        """
        import tensorflow as tf
        def step():
            framework = tf.contrib.framework
            return framework.get_global_step()
        """
    ) == [
        "import paramserve.train",
        *TF,
        "def step():",
        "    return paramserve.train.get_global_step()",
    ]


def test_an_alias_with_something_left_stays_and_is_listed():
    source = "import tensorflow as tf\nslim = tf.contrib.slim\nslim.conv2d\nslim.learning.train\n"
    migration = migrate_source(source)
    assert "slim = tf.contrib.slim\nslim.conv2d\nparamserve.contrib.slim.learning.train\n" in (
        migration.after
    )
    assert [each.name for each in migration.findings] == ["tf.contrib.slim.conv2d"]


SHADOWED = [
    "def f(tf):\n    return tf.train.Saver\n",
    "def f():\n    tf = object()\n    return tf.train.Saver\n",
    "f = lambda tf: tf.train.Saver\n",
    "f = [tf.train.Saver for tf in ()]\n",
    "for tf in ():\n    tf.train.Saver\n",
    "class A:\n    tf = 1\n    x = tf.train.Saver\n",
    "f(tf=1).tf.train.Saver\n",
    "def f():\n    with open('x') as tf:\n        tf.train.Saver\n",
]


@pytest.mark.parametrize("text", SHADOWED)
def test_another_tf_is_left_alone(text):
    source = f"def g():\n    import tensorflow.compat.v1 as tf\n    return tf.train\n\n{text}"
    migration = migrate_source(source)
    assert migration.after == source
    assert [each.line for each in migration.findings] == [3]


def test_names_are_rewritten_wherever_python_allows_them():
    old = """
    import tensorflow.compat.v1 as tf

    @tf.train.decorated
    class A(tf.train.Optimizer, x=tf.train.Saver):
        y: tf.train.Saver = (
            tf.train  # why
            .Saver
        )
        def f(self, z=tf.train.Scaffold) -> tf.train.Server:
            global g
            return f"{tf.train.Saver!r}", [tf.train.Example for _ in z if tf.train.Feature]
    """
    new = migrated(old)
    assert new.count("paramserve.train.") == 9
    assert "@tf.train.decorated" in new


def test_comments_and_layout_stay():
    old = '''
    #!/usr/bin/env python
    """Doc: tf.train.Saver."""

    import   tensorflow  as  tf   # the library

    x = [ tf.train.Saver( max_to_keep = 3 ),   # odd
    \t  tf.train.Example ]  ;  y='tf'
    '''
    assert migrated(old) == textwrap.dedent(
        '''
        #!/usr/bin/env python
        """Doc: tf.train.Saver."""

        import paramserve.train
        import   tensorflow.compat.v1  as  tf   # the library

        tf.disable_v2_behavior()

        x = [ paramserve.train.Saver( max_to_keep = 3 ),   # odd
        \t  paramserve.train.Example ]  ;  y='tf'
        '''
    ).lstrip("\n")


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_line_ends_stay(end):
    source = f"import tensorflow as tf{end}"
    newline = end or "\n"
    expected = (
        f"import tensorflow.compat.v1 as tf{newline}{newline}tf.disable_v2_behavior(){newline}"
    )
    assert migrate_source(source).after == expected
    mixed = "import tensorflow as tf\r\nx = tf.train.Saver()"
    assert migrate_source(mixed).after == (
        "import paramserve.train\r\nimport tensorflow.compat.v1 as tf\r\n\r\n"
        "tf.disable_v2_behavior()\r\nx = paramserve.train.Saver()"
    )


def test_a_block_that_loses_its_imports_keeps_a_statement():
    assert (
        migrated(
            """
        try:
            import tensorflow.contrib.slim as slim
            from tensorflow.contrib import layers
        except ImportError: import tensorflow.contrib.learn as learn
        """
        )
        == "try:\n    pass\nexcept ImportError: pass\n"
    )


def test_imports_in_functions_alone_are_served_there():
    assert migrated(
        """
        def train():
            if True:
                import tensorflow as tf
                return tf.train.Saver()

        def step():
            from tensorflow.contrib import framework
            return framework.get_global_step()
        """
    ) == textwrap.dedent(
        """
        def train():
            if True:
                import paramserve.train
                import tensorflow.compat.v1 as tf

                tf.disable_v2_behavior()
                return paramserve.train.Saver()

        def step():
            import paramserve.train
            return paramserve.train.get_global_step()
        """
    ).lstrip("\n")


def test_the_mode_is_switched_after_the_imports_and_once():
    assert lines(
        """
        import os
        import tensorflow as tf
        import numpy as np
        from a import b
        def f():
            import tensorflow as tf
        """
    ) == [
        "import os",
        TF[0],
        "import numpy as np",
        "from a import b",
        TF[1],
        "def f():",
        "    import tensorflow.compat.v1 as tf",
    ]


@pytest.mark.parametrize("call", ["disable_eager_execution", "enable_eager_execution"])
def test_a_script_that_chooses_its_mode_keeps_it(call):
    assert lines(f"import tensorflow as tf\ntf.{call}()") == [TF[0], f"tf.{call}()"]


def test_imports_that_are_there_are_not_added_again():
    assert lines("import paramserve.train\nimport tensorflow as tf\ntf.train.Saver") == [
        "import paramserve.train",
        *TF,
        "paramserve.train.Saver",
    ]


def test_the_import_can_be_kept():
    source = "import tensorflow as tf\ntf.train.AdamOptimizer(0.1)\ntf.placeholder\ntf.square\n"
    migration = migrate_source(source, keep_import=True)
    assert migration.after.splitlines() == [
        "import paramserve.train",
        "import tensorflow as tf",
        "paramserve.train.AdamOptimizer(0.1)",
        "tf.placeholder",
        "tf.square",
    ]
    (finding,) = migration.findings
    assert (finding.name, finding.remedy) == ("tf.placeholder", "use tf.compat.v1.placeholder")


def test_a_script_for_tensorflow_2_keeps_what_is_not_of_tensorflow_1():
    text = "import tensorflow as tf\ntf.compat.v1.train.Saver\ntf.train.Checkpoint\n"
    assert migrated(text).splitlines() == [
        "import paramserve.train",
        "import tensorflow as tf",
        "paramserve.train.Saver",
        "tf.train.Checkpoint",
    ]
    both = f"{text}tf.placeholder\n"
    assert "import tensorflow.compat.v1 as tf" in migrated(both)


def test_a_name_given_twice_is_followed_only_if_both_mean_the_same():
    same = """
    try:
        import tensorflow.compat.v1 as tf
    except ImportError:
        import tensorflow as tf
    tf.train.Saver
    """
    assert lines(same)[0] == "import paramserve.train"
    assert lines(same)[-1] == "paramserve.train.Saver"
    other = same.replace("import tensorflow as tf", "import my_stubs as tf")
    assert migrated(other) == textwrap.dedent(other).lstrip("\n")
    (finding,) = migrate_source(textwrap.dedent(other)).findings
    assert finding.name == "tf.train.Saver"
    assert "`tf` has other values too" in finding.remedy


def test_a_getattr_of_something_else_is_nobodys_business():
    source = "import tensorflow.compat.v1 as tf\nFLAGS = tf.flags.FLAGS\ngetattr(FLAGS, 'x')\n"
    assert migrate_source(source).findings == ()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import tensorflow as tf\nprint 'x'\n", r"^2:\d+: is not Python 3; for Python 2"),
        ("paramserve = 1\n", r"^1:1: there is another `paramserve` here"),
    ],
)
def test_what_cannot_be_migrated_says_where(source, message):
    with pytest.raises(UsageError, match=message):
        migrate_source(source)
