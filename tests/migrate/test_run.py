"""Migrated scripts train."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from paramserve.migrate import migrate_source
from support.ports import free_addresses

RUNNER = Path(__file__).with_name("run_scripts.py")


@pytest.fixture
def start(old_script, tmp_path):
    """Starts a process that runs migrated scripts, given with their arguments."""
    processes = []

    def start(*commands):
        for name, *_ in commands:
            (tmp_path / f"{name}.py").write_text(migrate_source(old_script(name)).after)
        scripts = [[str(tmp_path / f"{name}.py"), *rest] for name, *rest in commands]
        processes.append(
            subprocess.Popen(
                [sys.executable, RUNNER, json.dumps(scripts)],
                env={k: v for k, v in os.environ.items() if k != "TF_CONFIG"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def output_of(process):
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output[-3000:]
    return output


def values(pattern, output):
    found = re.search(pattern, output)
    assert found, output[-3000:]
    return [float(value) for value in found.groups()]


@pytest.mark.original_api(
    "tf.contrib.training.train returns",
    "tf.contrib.learn.train returns",
    "tf.train.StopAtStepHook",
    "tf.train.exponential_decay",
    "tf.train.MomentumOptimizer",
    "tf.train.string_input_producer",
    "tf.train.match_filenames_once",
    "tf.train.shuffle_batch",
    "tf.train.start_queue_runners",
    "tf.train.Coordinator",
)
def test_scripts_with_the_old_loops_and_queues_train(start, tmp_path):
    logdirs = {name: tmp_path / name for name in ("logistic", "actions", "slim", "queues")}
    logdirs["queues"].mkdir()
    output = output_of(
        start(
            ["graph_actions", f"--model_dir={logdirs['actions']}"],
            ["slim_train", str(logdirs["slim"])],
            ["queues", str(logdirs["queues"])],
            ["logistic", f"--train_dir={logdirs['logistic']}", "--hparams=learning_rate=2.0"],
        )
    )
    losses, last, answer = values(r"losses (\S+) last (\S+) f\(2\) (\S+)", output)
    assert losses == 16  # Steps 1, 11, ... and the last.
    assert last < 1e-4
    assert answer == pytest.approx(7.0, abs=0.05)
    calls, loss = values(r"calls (\S+) loss (\S+)", output)
    assert calls == 100
    assert loss < 0.1
    assert values(r"batches (\S+) mean (\S+)", output) == [6, 5.5]
    assert tf.train.load_variable(str(logdirs["queues"] / "mean"), "Variable") == 5.5
    step, loss = values(r"step (\S+) loss (\S+)\n", output)
    assert step == 200
    assert loss < 0.1
    checkpoint = tf.train.latest_checkpoint(str(logdirs["logistic"]))
    assert Path(checkpoint).name == "model.ckpt-200"


@pytest.mark.original_api("tf.train.MonitoredTrainingSession", "tf.train.SessionRunHook")
def test_a_pruning_script_prunes(start, tmp_path):
    output = output_of(start(["pruning_cifar", f"--train_dir={tmp_path / 'run'}"]))
    assert values(r"sparsity (\S+) (\S+)", output) == [0.8, 0.8]
    checkpoint = tf.train.load_checkpoint(str(tmp_path / "run"))
    mask = checkpoint.get_tensor("conv1/mask")
    assert mask.mean() == pytest.approx(0.2, abs=0.01)


@pytest.mark.original_api(
    "tf.train.Server",
    "tf.train.ClusterSpec",
    "tf.train.replica_device_setter",
    "tf.train.Supervisor",
    "tf.train.SyncReplicasOptimizer",
)
def test_a_replicated_script_trains_on_its_parameter_server(start, tmp_path):
    ps, worker = free_addresses(2, "localhost")
    hosts = [f"--ps_hosts={ps}", f"--worker_hosts={worker}", f"--logdir={tmp_path / 'run'}"]
    server = start(["replicas", "--job_name=ps", *hosts])
    output = output_of(start(["replicas", "--job_name=worker", *hosts]))
    assert values(r"step (\S+), weight (\S+)", output) == [50, 2.0]
    assert tf.train.load_variable(str(tmp_path / "run"), "weight") == pytest.approx(2.0)
    assert server.poll() is None
