"""Models that README and the first hour show work, or fail, as it stands there."""

import re
import shlex
from pathlib import Path

from .conftest import last_error, result_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FIRST_HOUR = (ROOT / "docs/first_hour.md").read_text()


def command_of(text, model, folder):
    """The first `paramserve run` of a model, as arguments, with files in a folder."""
    command = re.search(rf"paramserve (run {model}\.py:build .*)$", text, re.M)[1]
    files = {f"{model}.py:build": f"{folder / model}.py:build", f"runs/{model}": str(folder)}
    return [files.get(each, each) for each in shlex.split(command)]


def test_the_model_and_the_command_of_the_readme(start, tmp_path):
    model = re.search(r"```python\n# linear\.py\n(.*?)```", README, re.S)[1]
    (tmp_path / "linear.py").write_text(model)
    assert command_of(README, "linear", tmp_path) == command_of(FIRST_HOUR, "linear", tmp_path)

    shown = start(*command_of(README, "linear", tmp_path), "--launcher", "process")

    assert shown.wait() == 0, shown.output
    result = result_of(tmp_path)
    assert (result["global_step"], result["ps"], result["workers"]) == (500, 2, 2)
    assert result["loss"] < 0.1


def test_the_failing_model_of_the_first_hour(start, tmp_path):
    models = re.findall(r"```python\n(import .*?)```", FIRST_HOUR, re.S)
    labels = next(text for text in models if "labels" in text)
    (tmp_path / "labels.py").write_text(labels)
    line = 1 + next(i for i, text in enumerate(labels.splitlines()) if "sparse_softmax" in text)

    failing = start(*command_of(FIRST_HOUR, "labels", tmp_path), "--launcher", "process")

    assert failing.wait() == 1, failing.output
    error = last_error(failing)
    assert "worker:" in error
    assert "InvalidArgumentError: Received a label value of 3" in error
    assert f"made at {tmp_path}/labels.py:{line})" in error
    assert f"labels.py:{line})" in FIRST_HOUR
