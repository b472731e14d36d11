"""Random faults, one after another: the job completes, and nothing is lost."""

import math
import random
import time
from contextlib import ExitStack

import pytest

from .inject import Injector
from .network import Network, loopback, why_no_network
from .trial import LEASE_SECS, PATIENCE_SECS, Trial

# What a fault and its recovery take, in epochs, with a margin; only so that input does not run out.
EPOCHS_PER_FAULT = 0.6
SIGNALS = ("sigkill", "sigkill", "sigterm", "sigstop")
CUTS = ("halfcut", "cut", "slow")


@pytest.mark.faults
@pytest.mark.timeout(0)
@pytest.mark.parametrize("mode", ["async", "sync"])
def test_faults_by_chance_lose_nothing(mode, fork_server, tmp_path, request, record_property):
    count = request.config.getoption("--random-faults", default=20)
    seed = request.config.getoption("--random-seed", default=0)
    chance = random.Random(f"{seed}-{mode}")
    with ExitStack() as stack:
        network = None if why_no_network() else stack.enter_context(Network())
        epochs = max(2, math.ceil(count * EPOCHS_PER_FAULT))
        trial = Trial(
            fork_server,
            tmp_path,
            mode,
            place=network.place if network else loopback,
            params={"epochs": epochs},
            spares=1,
            max_restarts=5 * count,
            restart_window_secs=5.0,  # Faults are far closer here than back-off is made for.
        )
        stack.callback(trial.end)
        trial.start()
        workers_hit = 0
        for number in range(count):
            trial.until_trained(1)
            fault, target = choose(chance, trial, network is not None)
            print(f"{number}: {fault} of {target}", flush=True)
            workers_hit += target.startswith(("worker", "chief"))
            strike(chance, fault, target, trial, network, tmp_path)
        trial.until_trained(1)
        trial.hurry()
        trial.wait(10 * PATIENCE_SECS)
        trial.judge(lost_batches=2 * workers_hit if mode == "async" else 0)


def choose(chance, trial, has_network):
    """A process that lives, and what happens to it; a chief that is asked to end would end all."""
    fault = chance.choice(SIGNALS + (CUTS if has_network else ()))
    alive = [p.name for p in trial.launcher.processes if p.poll() is None]
    return fault, chance.choice([n for n in alive if (fault, n) != ("sigterm", "chief-0")])


def strike(chance, fault, target, trial, network, folder):
    injector = Injector(fault, target, trial, network, folder / "hungry")
    injector.strike()
    if injector.is_passing:
        time.sleep(chance.uniform(0.2, 2 * LEASE_SECS))
        injector.take_back()
    else:
        time.sleep(chance.uniform(0.0, 1.0))
