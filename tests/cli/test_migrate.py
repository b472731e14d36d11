"""`paramserve migrate` on files."""

import subprocess

import pytest
from typer.testing import CliRunner

from paramserve.cli.app import app

OLD = "import tensorflow as tf\n\nsaver = tf.train.Saver()\ntf.layers.dense\n"
NEW = """import paramserve.train
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()

saver = paramserve.train.Saver()
tf.layers.dense
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(OLD)
    return path


def test_a_diff_is_shown_and_nothing_written(invoke, script):
    result = invoke("migrate", script)
    assert result.exit_code == 0
    assert script.read_text() == OLD
    assert result.stdout.splitlines()[:3] == [f"--- {script}", f"+++ {script}", "@@ -1,4 +1,7 @@"]
    assert "\n-saver = tf.train.Saver()\n" in result.stdout
    assert "\n+saver = paramserve.train.Saver()\n" in result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{script}:4:1: tf.layers.dense: needs Keras 2")


def test_the_diff_is_one_that_patch_takes(invoke, script):
    script.write_text(OLD.rstrip("\n"))
    diff = invoke("migrate", script).stdout
    subprocess.run(["patch", "-p0", script], input=diff, text=True, check=True, timeout=60)
    assert script.read_text() == NEW.rstrip("\n")


def test_the_diff_has_colours_on_a_terminal(script):
    runner = CliRunner(env={"FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": None})
    plain = CliRunner(env={"NO_COLOR": "1", "FORCE_COLOR": None}).invoke(
        app, ["migrate", str(script)]
    )
    coloured = runner.invoke(app, ["migrate", str(script)])
    assert "\x1b[32m+saver = paramserve.train.Saver()" in coloured.stdout
    assert "\x1b[" not in plain.stdout


def test_files_are_written_when_told_to(invoke, script):
    result = invoke("migrate", "--write", script)
    assert (result.exit_code, result.stdout) == (0, f"rewrote {script}\n")
    assert script.read_text() == NEW
    assert result.stderr.startswith(f"{script}:7:1: tf.layers.dense: ")
    again = invoke("migrate", "--write", script)
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", result.stderr)
    assert [path.name for path in script.parent.iterdir()] == ["train.py"]


def test_the_import_can_be_kept(invoke, script):
    assert invoke("migrate", "--write", "--keep-import", script).exit_code == 0
    assert script.read_text() == OLD.replace("tf.train", "paramserve.train").replace(
        "import", "import paramserve.train\nimport", 1
    )


def test_one_bad_file_does_not_spoil_the_others(invoke, script):
    folder = script.parent
    (folder / "python2.py").write_text("print 'x'\n")
    (folder / "utf8.py").write_bytes(b"\xff\n")
    result = invoke("migrate", "--write", folder)
    assert result.exit_code == 2
    assert script.read_text() == NEW
    *_, first, last = result.stderr.splitlines()
    assert first.startswith(f"{folder / 'python2.py'}:1:1: is not Python 3")
    assert last.startswith(f"error: {folder / 'utf8.py'}: is no Python text")


def test_a_file_that_is_not_there(invoke, tmp_path):
    result = invoke("migrate", tmp_path / "missing.py")
    assert result.exit_code == 2
    assert (
        result.stderr
        == f"error: {tmp_path / 'missing.py'}: cannot be read: No such file or directory\n"
    )
    assert invoke("migrate").exit_code == 2
