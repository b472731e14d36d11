"""A host that is lost with the chief on it: the job continues from another host."""

import signal
from contextlib import ExitStack

import pytest

from .network import Network, why_no_network
from .trial import Trial

SOME_STEPS = 20


@pytest.mark.faults
@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_chief_whose_host_is_lost_is_followed_by_one_on_another(mode, fork_server, tmp_path):
    """No process was told its address: all find it through the log directory."""
    if reason := why_no_network():
        pytest.skip(f"not run: {reason}")
    with ExitStack() as stack:
        network = stack.enter_context(Network())
        hosts = iter(("chief-a", "chief-b"))
        trial = Trial(
            fork_server,
            tmp_path,
            mode,
            place=lambda name: network.place(next(hosts) if name == "chief-0" else name),
        )
        stack.callback(trial.end)
        trial.start()
        before = trial.until_trained(SOME_STEPS)
        network.cut("chief-a", incoming=True)
        trial.process("chief-0").send_signal(signal.SIGKILL)
        after = trial.until(
            lambda status: (
                status.phase == "training" and status.global_step >= before.global_step + SOME_STEPS
            ),
            "steps with another chief",
        )
        assert processes(after) == processes(before), "they have followed it"
        trial.hurry()
        trial.wait()
        trial.judge()


def processes(status):
    return {(task.role, task.index): task.pid for task in status.tasks}
