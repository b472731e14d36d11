"""Time without a step, and steps lost, when a process of a job is killed.

`python -m paramserve.benchmarks.recovery` trains the Census example, and kills one process after
another with SIGKILL. It measures the time from each kill to the next global step.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..cli.arguments import ending_with_exit_code
from ..cluster.chief_client import CALL_TIMEOUT_SECS
from ..cluster.security import SecurityOptions
from ..cluster.status_client import JOB_FILE, StatusClient, find_chief
from ..errors import JobFailed, ParamserveError, UsageError, WaitTimeout
from ..protos import status_pb2 as pb
from .kills import Kill, kill_table
from .recovery_peers import PEERS, SAVE_SECS, WORKLOAD, measure_peer
from .remains import Remains

CENSUS = Path(__file__).parents[1] / "examples" / "census" / "wide_deep.py"
PLAIN = Path(__file__).parent / "recovery_model.py"
LOOK_SECS = 0.02
MAX_WAIT_SECS = 120.0
MIRROR_SECS = 2.0
_SOME_STEPS = 50


@dataclass(frozen=True)
class Scenario:
    """The process to kill, and its job.

    Attributes:
        name: Its name on the command line.
        role: "ps", "worker" or "chief"; or "scale": nothing is killed, the model moves.
        options: Options of `paramserve run`.
        model: The file of the model.
        peer: Another system that trains, in place of ours; "": none.
    """

    name: str
    role: str
    options: tuple[str, ...] = ()
    model: Path = CENSUS
    peer: str = ""


_MIRRORS = ("--mirror-secs", str(MIRROR_SECS))
SCENARIOS = (
    Scenario("ps-spare-async", "ps", ("--async", "--spares", "1", *_MIRRORS)),
    Scenario("ps-spare-sync", "ps", ("--sync", "--spares", "1", *_MIRRORS)),
    Scenario("ps-async", "ps", ("--async", *_MIRRORS)),
    Scenario("ps-checkpoint-async", "ps", ("--async", "--save-checkpoint-secs", "5")),
    Scenario("worker-async", "worker", ("--async", "--lease-secs", "3")),
    Scenario("worker-sync", "worker", ("--sync", "--lease-secs", "3")),
    Scenario("chief-async", "chief", ("--async",)),
    Scenario("chief-sync", "chief", ("--sync",)),
)
# 100 MiB of variables, from 2 servers to 4 and back.
_LARGE = ("--param", "workload=mebibytes-100")
SCALED = (
    Scenario("scale-async", "scale", ("--async", *_LARGE), PLAIN),
    Scenario("scale-sync", "scale", ("--sync", *_LARGE), PLAIN),
)
# The same workload, and the same kills, for all: a checkpoint every few seconds, and no spare.
_SAVING = ("--async", "--save-checkpoint-secs", str(SAVE_SECS), "--param", f"workload={WORKLOAD}")
COMPARED = tuple(
    scenario
    for role in ("ps", "worker", "chief")
    for scenario in (
        Scenario(f"compared-{role}-paramserve", role, _SAVING, PLAIN),
        *(Scenario(f"compared-{role}-{peer}", role, peer=peer) for peer in PEERS),
    )
)


def measure(scenario: Scenario, kills: int, pause_secs: float, remains: Remains) -> Iterator[Kill]:
    """Runs a job of 2 parameter servers and 2 workers, and kills its processes one by one.

    Args:
        scenario: What to kill.
        kills: Number of kills.
        pause_secs: From a recovery to the next kill; a random time of up to 2 s is added.
        remains: Receives the job's processes after each kill.

    Raises:
        JobFailed: The job ended by itself.
        WaitTimeout: The job did not recover.
    """
    if scenario.peer:
        yield from measure_peer(scenario.peer, scenario.role, kills, pause_secs)
        return
    chance = random.Random(0)
    with running_job(scenario) as job:
        for number in range(kills):
            if scenario.role == "scale":
                yield job.scale(4 if number % 2 == 0 else 2, pause_secs)
                continue
            job.wait("a spare, and a restore point", job.is_whole)
            time.sleep(pause_secs + 2 * chance.random())
            remains.note(job.processes(job.wait("a spare, and a restore point", job.is_whole)))
            yield job.kill(scenario.role, chance)


class RunningJob:
    """A job that runs, seen from outside.

    Attributes:
        logdir: Its log directory.
    """

    def __init__(self, process: subprocess.Popen[bytes], logdir: str, log: Path) -> None:
        self._process = process
        self.logdir = logdir
        self._log = log
        self._client: StatusClient | None = None
        self._whole: dict[str, int] = {}

    def _open_client(self, timeout_secs: float) -> StatusClient:
        access = SecurityOptions().access(self.logdir)
        return StatusClient(find_chief(self.logdir), access, timeout_secs)

    def status(self) -> pb.JobStatus | None:
        """Asks the chief for its status; None when it does not answer."""
        if self._process.poll() is not None:
            raise JobFailed(f"the job ended by itself:\n{self._log.read_text()[-2000:]}")
        try:
            if self._client is None:
                self._client = self._open_client(5.0)
            return self._client.status()
        except ParamserveError:
            return None

    def is_whole(self, status: pb.JobStatus) -> bool:
        """Returns True if the job trains with as many tasks as at first."""
        counts = _counts(status)
        whole = status.phase == "training" and status.global_step >= _SOME_STEPS
        if whole and not self._whole and len(counts) > 1 and counts.get("worker") == 2:
            self._whole = counts
        # A killed worker is listed until its lease runs out or a replacement registers.
        live = all(Path(f"/proc/{t.pid}").exists() for t in status.tasks if t.state == "up")
        return whole and bool(self._whole) and counts == self._whole and live

    def wait(self, what: str, condition: Callable[[pb.JobStatus], bool]) -> pb.JobStatus:
        """Waits until a condition holds."""
        deadline = time.monotonic() + MAX_WAIT_SECS
        while time.monotonic() < deadline:
            status = self.status()
            if status is not None and condition(status):
                return status
            time.sleep(LOOK_SECS)
        raise WaitTimeout(f"waited {MAX_WAIT_SECS:g} s for {what}: {self.status()}")

    def kill(self, role: str, chance: random.Random) -> Kill:
        """Kills one process and waits for the next step."""
        before = self.wait("its status", lambda _: True)
        up = [t.pid for t in before.tasks if t.role == role and t.state == "up"]
        pids = [self.chief_pid()] if role == "chief" else up
        killed = time.monotonic()
        os.kill(chance.choice(pids), signal.SIGKILL)
        if role == "ps":
            after = self.wait("a recovery", lambda s: s.recoveries > before.recoveries)
            lost = max(0, before.global_step - after.recovered_step)
        elif role == "chief":
            # It answers again, and has seen a step that was made after it had gone.
            after = self.wait("another chief", lambda s: s.global_step > before.global_step)
            lost = 0
        else:
            # One step may have been under way; the killed worker took no part in the next one.
            after = self.wait("two steps", lambda s: s.global_step >= before.global_step + 2)
            lost = 0
        secs = time.monotonic() - killed
        return Kill(secs, lost, lost / max(before.steps_per_second, 1e-9))

    def scale(self, ps: int, pause_secs: float) -> Kill:
        """Moves the model to other parameter servers, and measures the time without a step.

        Args:
            ps: The new number of parameter servers.
            pause_secs: Seconds of training before the move.
        """
        before = self.wait("steps", lambda s: s.phase == "training" and s.global_step >= 5)
        time.sleep(pause_secs)
        with self._open_client(CALL_TIMEOUT_SECS) as client:
            client.scale(ps=ps)
        after = self.wait("a move", lambda s: s.resizes > before.resizes and s.num_ps == ps)
        return Kill(after.resize_secs, 0, 0.0)

    def processes(self, status: pb.JobStatus) -> dict[str, int]:
        """Returns the ids of the processes that hold a part of the job."""
        tasks = {f"{t.role}:{t.index}": t.pid for t in status.tasks if t.state == "up"}
        return {"chief": self.chief_pid(), **tasks}

    def address(self) -> str:
        """Returns the address of the chief."""
        return find_chief(self.logdir)

    def chief_pid(self) -> int:
        """Returns the process id of the chief."""
        return int(json.loads(Path(self.logdir, JOB_FILE).read_text())["pid"])

    def stop(self) -> None:
        """Asks the job to end."""
        if self._client is not None:
            with contextlib.suppress(ParamserveError):
                self._client.stop()
            self._client.close()


def _counts(status: pb.JobStatus) -> dict[str, int]:
    counts: dict[str, int] = {}
    for task in status.tasks:
        kind = task.role if task.state == "up" else task.state
        if kind in ("ps", "worker", "spare"):
            counts[kind] = counts.get(kind, 0) + 1
    return counts


@contextlib.contextmanager
def running_job(scenario: Scenario) -> Iterator[RunningJob]:
    """Runs the job of a scenario, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="paramserve-recovery-") as folder:
        log, logdir = Path(folder, "output.txt"), str(Path(folder, "job"))
        command = [sys.executable, "-m", "paramserve", "run", f"{scenario.model}:build"]
        command += ["--launcher", "process", "--ps", "2", "--workers", "2", "--logdir", logdir]
        command += ["--max-steps", "1000000", "--no-eval", *scenario.options]
        # An earlier kill is no reason to delay the restart.
        command += ["--max-restarts", "1000", "--restart-window-secs", "1"]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        job = RunningJob(process, logdir, log)
        try:
            yield job
        finally:
            job.stop()
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for signum, secs in ((None, 30), (signal.SIGINT, 20), (signal.SIGKILL, 5)):
        if signum is not None:
            process.send_signal(signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(secs)
            return


def recovery(
    scenario: Annotated[
        list[str] | None, typer.Option("--scenario", "-s", help="May be repeated; default: all.")
    ] = None,
    kills: Annotated[int, typer.Option("--kills", min=1, help="Of each scenario.")] = 20,
    pause_secs: Annotated[
        float, typer.Option("--pause-secs", min=0.0, help="From a recovery to the next kill.")
    ] = 3.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures here.")
    ] = None,
) -> None:
    """Kills processes of a job that trains the Census example, and takes the time."""
    console = Console()
    with ending_with_exit_code(debug=False):
        known = {each.name: each for each in (*SCENARIOS, *SCALED, *COMPARED)}
        for name in scenario or ():
            if name not in known:
                raise UsageError(f"--scenario {name!r}: expected one of {', '.join(known)}")
        results: dict[str, list[Kill]] = {}
        remains = Remains()
        for name in scenario or known:
            results[name] = []
            for kill in measure(known[name], kills, pause_secs, remains):
                results[name].append(kill)
                console.print(f"{name}: {kill.secs:.2f} s, {kill.steps_lost} steps lost")
        console.print(kill_table(results))
        if (left := remains.table()) is not None:
            console.print(left)
        if json_file is not None:
            found = {name: [asdict(kill) for kill in each] for name, each in results.items()}
            json_file.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(recovery)
