"""The library's log appears as TensorFlow's does, each line once."""

import re
import subprocess
import sys
from pathlib import Path

TASK = Path(__file__).with_name("verbosity_task.py")
# Of both loops, without the time that a step took.
LOSSES = [
    "global step 1: loss = 2.0000",
    "global step 2: loss = 2.0000",
    "training step 1, loss = 2.00000",
]


def test_losses_are_logged_as_the_verbosity_of_tensorflow_says(tmp_path):
    done = subprocess.run(
        [sys.executable, str(TASK), str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    logged = {}
    for line in done.stderr.splitlines():
        if re.fullmatch(r"[a-z ]+:", line):
            lines = logged[line] = []
        elif found := re.match(
            r"(root |INFO:paramserve.*?:)?.*((global|training) step .*) \(", line
        ):
            lines.append((found[1] or "", found[2]))
    texts = {name: [text for _, text in lines] for name, lines in logged.items()}
    assert texts == {
        "nothing:": [],
        "verbosity:": LOSSES,
        "verbosity and handler:": LOSSES,
        "not propagated:": LOSSES,
        "errors only:": [],
        "root:": LOSSES,
        "own level:": [],
        "own handler:": LOSSES,
    }
    assert {start for start, _ in logged["verbosity and handler:"]} == {"root "}
    assert all(start.startswith("INFO:paramserve.") for start, _ in logged["verbosity:"])
