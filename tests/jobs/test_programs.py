"""Programs that run jobs, as people write them: what happens to those that miss something."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from paramserve.errors import UsageError
from paramserve.jobs.folders import use_folders

MODEL = """
import multiprocessing
import sys

from paramserve import Job


def build(task):
    import tensorflow as tf

    weights = tf.compat.v1.get_variable("weights", [3])
    return TrainSpec(loss=tf.reduce_sum(weights**2), optimizer=None, examples=1)


def run(model=build):
    Job(model, logdir="runs/job", max_steps=5, launcher="process").run()

"""
REMEDY = 'put the start of the job under `if __name__ == "__main__":`'


@pytest.fixture
def run(tmp_path):
    """Runs a program with the model above; gives its lines on standard error."""

    def run_program(text, name="job.py", command=("job.py",), stdin=None):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(MODEL + text)
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONPATH": "", "TMPDIR": str(tmp_path)},
            input=stdin,
            check=False,
        )
        assert done.returncode == 1
        assert processes_in(tmp_path) == []
        return done.stderr.splitlines()

    return run_program


def processes_in(folder):
    """Returns the processes that work in a folder, after a moment in which they may end."""
    for _ in range(100):
        found = []
        for process in psutil.process_iter(["cwd", "status"]):
            is_dead = process.info["status"] == psutil.STATUS_ZOMBIE
            if process.info["cwd"] == str(folder) and not is_dead:
                found.append(process)
        if not found:
            break
        time.sleep(0.05)
    return found


@pytest.mark.parametrize(
    ("text", "name", "command"),
    [
        ("run()", "job.py", ["job.py"]),
        ("run('job.py:build')", "job.py", ["job.py"]),
        ("run('job:build')", "job.py", ["job.py"]),
        ("run()", "job.py", ["-m", "job"]),
        ("run()", "package/job.py", ["-m", "package.job"]),
        ("run()", "job.py", ["-c", "import job"]),
        ("for _ in range(2):\n    run()", "job.py", ["job.py"]),
    ],
    ids=["script", "file", "module", "-m", "package", "import", "loop"],
)
def test_a_job_that_every_import_would_start_is_refused_before_it_starts(
    run, tmp_path, text, name, command
):
    lines = run(text, name, command)

    assert lines[-1].startswith("paramserve.errors.UsageError: ")
    assert "starts a job at every import" in lines[-1]
    assert REMEDY in lines[-1]
    assert not (tmp_path / "runs").exists()
    # The user's own lines lead to it, none of the library's.
    assert not [line for line in lines if "jobs/" in line]
    assert [line for line in lines if "job.py" in line]


def test_a_job_that_an_import_may_start_ends_in_the_first_process_that_imports_it(run):
    """No reading of the file tells what its condition is in another process."""
    lines = run("if 'job' not in sys.argv:\n    run()")

    assert "job.py:16 starts a job inside the chief of another one" in lines[-1]
    assert REMEDY in lines[-1]


def test_a_job_is_not_started_by_processes_that_import_the_main_file(run):
    """`multiprocessing` has them do so where it spawns."""
    lines = run(
        "if __name__ == '__mp_main__':\n"
        "    run('job.py:build')\n"
        "multiprocessing.set_start_method('spawn')\n"
        "child = multiprocessing.Process(target=print)\n"
        "child.start()\n"
        "child.join()\n"
        "sys.exit(child.exitcode)\n"
    )

    assert "starts a job at every import" in lines[-1]
    assert REMEDY in lines[-1]


def test_a_mistake_is_shown_without_the_librarys_own_lines(run):
    lines = run("Job(build, logdir='runs/job', num_worker=2)")

    assert lines == [
        "Traceback (most recent call last):",
        *lines[1:-1],
        "paramserve.errors.UsageError: Job has no argument 'num_worker': "
        "did you mean 'num_workers'?",
    ]
    assert [line.strip().split(",")[0] for line in lines if "File" in line] == [
        f'File "{lines[1].split(chr(34))[1]}"'
    ]
    assert "job.py" in lines[1]


def test_a_program_on_standard_input_is_told_to_be_a_file(run):
    lines = run("", command=["-"], stdin=MODEL + "run()")

    assert "'build' is defined in <stdin>" in lines[-1]


def test_a_log_directory_takes_one_job_at_a_time(tmp_path):
    """Also before its chief answers; a launcher that is gone holds nothing."""
    logs = tmp_path / "job" / "logs"
    with use_folders(str(tmp_path / "job"), logs):
        with (
            pytest.raises(UsageError, match="another job starts or ends in --logdir"),
            use_folders(str(tmp_path / "job"), logs),
        ):
            pass
        with use_folders(str(tmp_path / "other"), tmp_path / "other" / "logs"):
            pass
    with use_folders(str(tmp_path / "job"), logs):
        assert list(logs.iterdir()) == []
