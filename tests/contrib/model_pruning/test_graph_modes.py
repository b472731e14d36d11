"""The whole library after either global switch, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

TASK = Path(__file__).with_name("graph_mode_task.py")


@pytest.mark.parametrize("switch", ["disable_v2_behavior", "disable_eager_execution"])
def test_layers_are_pruned_and_stripped(switch, tmp_path):
    done = subprocess.run(
        [sys.executable, str(TASK), switch, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    kind = "ref" if switch == "disable_v2_behavior" else "resource"
    assert done.stdout.splitlines() == [f"{kind} variables", "updated at [2, 4]", "stripped"]
