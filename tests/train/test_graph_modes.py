"""Features that TensorFlow's graph modes treat differently: all work in every mode."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

TASK = Path(__file__).with_name("graph_modes_task.py")

pytestmark = pytest.mark.original_api(
    "tf.train.match_filenames_once",
    "tf.train.string_input_producer",
    "tf.train.ExponentialMovingAverage",
    "tf.train.sdca_shrink_l1",
    "tf.train.get_or_create_global_step",
    "tf.train.global_step",
    "tf.train.warm_start",
    "tf.train.MonitoredTrainingSession",
    "tf.train.Supervisor",
)


def load_task():
    spec = importlib.util.spec_from_file_location("graph_modes_task", TASK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("check", load_task().CHECKS, ids=lambda check: check.__name__)
def test_in_the_default_mode(check, tmp_path):
    check(tmp_path)


@pytest.mark.parametrize("mode", ["disable_eager_execution", "disable_v2_behavior"])
def test_in_other_modes(mode):
    command = [sys.executable, str(TASK), mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [check.__name__ for check in load_task().CHECKS]
