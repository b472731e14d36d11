"""What README shows works as it stands there."""

import re
import shlex
from pathlib import Path

from .conftest import result_of

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_model_and_the_command_of_the_readme(start, tmp_path, logdir):
    model = re.search(r"```python\n# linear\.py\n(.*?)```", README, re.S)[1]
    (tmp_path / "linear.py").write_text(model)
    command = re.search(r"^\.venv/bin/paramserve (run linear\.py:build .*)$", README, re.M)[1]
    arguments = [
        str(logdir) if a == "runs/linear" else a.replace("linear.py", str(tmp_path / "linear.py"))
        for a in shlex.split(command)
    ]

    shown = start(*arguments, "--launcher", "process")

    assert shown.wait() == 0, shown.output
    result = result_of(logdir)
    assert (result["global_step"], result["ps"], result["workers"]) == (500, 2, 2)
    assert result["loss"] < 0.1
