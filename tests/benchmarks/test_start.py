"""The benchmark of starts: the time to the first step, of a job and of TensorFlow alone."""

import sys

import pytest
import tensorflow as tf

from paramserve.benchmarks.start import measure
from paramserve.benchmarks.start_model import NOTE, VARIABLES, build, train_alone
from paramserve.errors import JobFailed, WaitTimeout
from paramserve.model.spec import TaskContext

MAX_WAIT_SECS = 60.0


def script(text):
    return [sys.executable, "-c", text]


def test_it_takes_the_time_and_the_processor_seconds_until_the_note(tmp_path):
    note = tmp_path / "note"
    busy = "import time\nwhile time.process_time() < 0.5: pass\n"
    end = f"open({str(note)!r} + '.part', 'w').write(str(time.time()))\n"
    end += f"import os; os.rename({str(note)!r} + '.part', {str(note)!r})\ntime.sleep(1)"
    start = measure(script(busy + end), note, MAX_WAIT_SECS)
    assert start.secs >= start.busiest_secs / 2 > 0.2
    assert start.total_secs >= start.busiest_secs


def test_a_command_without_a_first_step_is_an_error(tmp_path):
    with pytest.raises(JobFailed, match="ended with code 3"):
        measure(script("raise SystemExit(3)"), tmp_path / "note", MAX_WAIT_SECS)
    with pytest.raises(WaitTimeout, match=r"max_wait_secs=0\.2 ran out"):
        measure(script("import time; time.sleep(60)"), tmp_path / "note", 0.2)


def test_a_job_and_tensorflow_alone_have_the_same_variables(tmp_path):
    note = tmp_path / "note"
    train_alone(5, str(note))
    assert float(note.read_text()) > 0
    params = {VARIABLES: "5", NOTE: str(note)}
    with tf.Graph().as_default():
        build(TaskContext("worker", 0, 1, 1, False, params))
        assert len(tf.compat.v1.trainable_variables()) == 5
