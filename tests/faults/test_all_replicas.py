"""Steps of as many gradients as there are workers, while workers are killed and come back."""

import signal
from contextlib import ExitStack

import pytest

from .network import loopback
from .trial import Trial

SOME_STEPS = 20
KILLS = 3


@pytest.mark.faults
def test_steps_follow_workers_that_are_killed_and_come_back(fork_server, tmp_path):
    with ExitStack() as stack:
        trial = Trial(fork_server, tmp_path, "sync", place=loopback, replicas_to_aggregate="all")
        stack.callback(trial.end)
        trial.start()
        for number in range(KILLS):
            before = trial.until_trained(1)
            trial.process(f"worker-{number % 2}").send_signal(signal.SIGKILL)
            trial.until(
                lambda status, step=before.global_step: status.global_step >= step + SOME_STEPS,
                "steps of the remaining workers and of new ones",
            )
        trial.until_trained(1)
        trial.hurry()
        trial.wait()
        trial.judge()
        workers = [p for p in trial.launcher.processes if p.name.startswith("worker")]
        assert len(workers) == 2 + KILLS
