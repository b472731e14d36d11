"""One fault in one process at one moment: the job ends as an undisturbed one does."""

import re
import time
from contextlib import ExitStack

import pytest

from paramserve.errors import ExitCode

from .cases import CHOICE, NETWORK_FAULTS, all_cases, why_senseless
from .inject import Injector, small_disk, why_no_small_disk
from .network import Network, loopback, why_no_network
from .trial import LEASE_SECS, LOOK_SECS, PATIENCE_SECS, Trial

PASSING_SECS = LEASE_SECS + 2.0
SOME_STEPS = 20
MORE_PS = 3
# The chief reads the step now and then: what it says a moment after the fault may be of before.
LATE_STEPS = 5
OUT_OF_MEMORY = re.compile(r"memory|alloc|SIGABRT|SIGKILL|resource|thread", re.IGNORECASE)
OUT_OF_DISK = re.compile(r"No space left|not writable")

CASES = [
    pytest.param(case, id=str(case), marks=() if str(case) in CHOICE else pytest.mark.faults)
    for case in all_cases()
    if why_senseless(case) is None
]


@pytest.mark.timeout(4 * PATIENCE_SECS)
@pytest.mark.parametrize("case", CASES)
def test_a_job_survives(case, fork_server, tmp_path, record_property):
    record_property("case", str(case))
    if reason := why_not_run(case):
        pytest.skip(reason)
    with ExitStack() as stack:
        trial, injector = prepare(case, fork_server, tmp_path, stack)
        trial.start()
        secs = undergo(case, trial, injector)
        if secs is not None:
            record_property("seconds", f"{secs:.1f}")
        if case.moment == "scaling" and case.role != "chief":
            moved = "the model on all servers"
            trial.until(lambda status: status.num_ps == MORE_PS, moved, may_end=True)
        trial.hurry()
        trial.wait()
        injector.take_back()
        if said := documented_end(case, trial):
            record_property("result", f"ended: {said}")
            trial = run_again(case, fork_server, tmp_path, trial, stack)
        trial.judge(lost_batches=lost_batches(case))


def why_not_run(case):
    if case.fault in NETWORK_FAULTS and (reason := why_no_network()):
        return f"not run: {reason}"
    if case.fault == "disk" and (reason := why_no_small_disk()):
        return f"not run: {reason}"
    return None


def prepare(case, fork_server, folder, stack):
    """The trial, not started, and what is to happen to it."""
    logdir, network, hungry = folder / "job", None, folder / "hungry"
    if case.fault == "disk":
        stack.enter_context(small_disk(logdir))
    if case.fault in NETWORK_FAULTS:
        network = stack.enter_context(Network())
    # What is to be caught in the middle has to last.
    is_large = case.moment == "checkpoint" and case.fault not in ("disk", *NETWORK_FAULTS)
    ballast = 32 if is_large or case.fault == "memory" else 1
    trial = Trial(
        fork_server,
        folder,
        case.mode,
        logdir=logdir,
        place=network.place if network else loopback,
        params={
            "ballast": ballast,
            "eval_secs": 1 if case.moment == "shutdown" else 0,
            "hungry": hungry,
        },
        spares=1 if case.needs_spare else 0,
    )
    stack.callback(trial.end)
    injector = Injector(case.fault, case.target, trial, network, hungry)
    stack.callback(injector.take_back)
    return trial, injector


def undergo(case, trial, injector):
    """Lets it happen at its moment, and takes it back; seconds to the next steps, if any."""
    before = None
    if case.moment != "init":
        before = trial.until_trained(SOME_STEPS)
    if case.moment == "checkpoint":
        trial.save()
    elif case.moment == "scaling":
        trial.scale(MORE_PS)
        trial.until(are_more_there, "a server more")
    elif case.moment == "shutdown":
        trial.hurry()
        over = ("evaluating",) if case.role == "evaluator" else ("stopping", "evaluating", "done")
        trial.until(lambda status: status.phase in over, "the end of training")
    injector.strike()
    return watch(case, trial, injector, before)


def are_more_there(status):
    """Returns whether the model is about to move, or has just moved."""
    servers = [t for t in status.tasks if t.role == "ps" and t.state in ("up", "spare")]
    return len(servers) >= MORE_PS and status.phase in ("scaling", "training", "initializing")


def watch(case, trial, injector, before):
    began, secs = time.monotonic(), None
    is_taken_back, is_awaited = not injector.is_passing, case.moment != "shutdown"
    while not trial.is_over and (not is_taken_back or (is_awaited and secs is None)):
        now = time.monotonic() - began
        assert now < PATIENCE_SECS, f"no further steps\n{trial.describe(trial.status())}"
        if is_awaited and secs is None and has_gone_on(case, before, trial.status()):
            secs = time.monotonic() - began
        if not is_taken_back and now >= PASSING_SECS:
            injector.take_back()
            is_taken_back = True
        time.sleep(LOOK_SECS)
    return secs


def has_gone_on(case, before, status):
    if status is None or status.phase != "training":
        return False
    if before is None:
        return status.global_step >= LATE_STEPS
    if case.role == "ps" and status.recoveries > before.recoveries:
        return True
    # Without a loss it continues from the same point; with one, it may be restored first.
    margin = 8 * LATE_STEPS if case.role == "ps" else LATE_STEPS
    return status.global_step >= before.global_step + margin


def documented_end(case, trial):
    """Returns the job's error if it ended as documented for this fault; None if it continued."""
    if trial.error is None and trial.result.reason == "end_of_input":
        return None
    said = str(trial.error or trial.result.reason)
    first = said.splitlines()[0]
    in_chief = case.role in ("chief", "evaluator")
    asked = in_chief and trial.launcher.newest("chief-0").poll() == ExitCode.INTERRUPTED
    allowed = {
        "sigterm": asked,
        "disk": bool(OUT_OF_DISK.search(said)),
        "memory": bool(OUT_OF_MEMORY.search(said)),
    }
    if not allowed.get(case.fault, False):
        return None
    assert trial.launcher.survivors == [], trial.describe()
    return re.sub(r"/\S*/", "", first).replace("|", "/")[:160]


def run_again(case, fork_server, folder, trial, stack):
    """The same command once more, undisturbed."""
    again = Trial(
        fork_server,
        folder / "again",
        case.mode,
        logdir=trial.logdir,
        params={"ballast": trial.params["ballast"]},
        spares=1 if case.needs_spare else 0,
    )
    stack.callback(again.end)
    again.hurry()
    again.start()
    again.wait()
    return again


def lost_batches(case):
    """Batches that a fault may leave applied and not counted, or counted twice.

    A batch of one epoch that counts twice takes the place of one of the next.
    """
    if case.mode == "sync":
        return 0
    if case.role == "worker" and case.fault != "sigterm":
        return 2
    # A task that is cut off from the chief for a lease is lost, whichever side the cut is on; a
    # step
    # of each worker may be under way to a server.
    cut_off = ("sigstop", *NETWORK_FAULTS)
    return 4 if case.fault in cut_off else 0
