"""The parameter servers and workers of a job, as its launching process looks after them."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Sequence

from ..protos import status_pb2 as pb
from .launch.ahead import StartedAhead
from .launch.ends import (
    describe_end,
    describe_exit,
    failed_before_it_joined,
    is_worth_a_restart,
)
from .launch.interface import ProcessHandle
from .launch.overdue import Overdue
from .launch.restarts import BudgetSpent, RestartBudget
from .lives import Lives
from .processes import SPARE, JobProcesses

log = logging.getLogger(__name__)

# How long tasks may take to end by themselves once the chief has.
END_SECS = 20.0


class SupervisedTasks:
    """The tasks of a job, started, and restarted when they were killed.

    Args:
        processes: Makes their specifications.
        lives: Starts them.
        restarts: The limits of restarts.
    """

    def __init__(self, processes: JobProcesses, lives: Lives, restarts: RestartBudget) -> None:
        self._processes = processes
        self._lives = lives
        self._restarts = restarts
        options = processes.options
        self._hosts_parameters = options.ps_on_workers
        self._wanted = {"worker": options.num_workers, "ps": options.num_ps}
        self._tasks: dict[tuple[str, int], ProcessHandle] = {}
        self._ahead = StartedAhead(self._start_spare)
        self._overdue = Overdue(END_SECS)
        self._chief = ""

    @property
    def handles(self) -> Sequence[ProcessHandle]:
        """The newest process of each task."""
        return tuple(self._tasks.values())

    def start(self, chief: str) -> None:
        """Starts the tasks that the job begins with.

        Args:
            chief: The chief's address.
        """
        self._chief = chief
        for role, count in self._processes.counts.items():
            for index in range(count if role != "chief" else 0):
                self._start(role, index)

    def look_after(self, status: pb.JobStatus, chief: str) -> str:
        """Starts the wanted tasks, and restarts killed ones.

        Args:
            status: The job's status, from the chief.
            chief: The chief's address.

        Returns:
            The reason why the job has to stop; empty if it can continue.
        """
        self._chief = chief
        self._start_what_is_wanted(status)
        if not self._hosts_parameters:
            self._ahead.look(status)
        states = {(task.role, task.index): task.state for task in status.tasks}
        for task, handle in self._tasks.items():
            code, state = handle.poll(), states.get(task, "")
            if code is None:
                self._end_if_overdue(task, handle, state)
            elif reason := self._replace(task, handle, code, state):
                return reason
        return ""

    def await_end(self) -> None:
        """Waits until all have ended by themselves, or have had their time to."""
        deadline = time.monotonic() + END_SECS
        for handle in self._tasks.values():
            while handle.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            code = handle.poll()
            if code is None:
                log.warning("%s did not end within %g s and is killed", handle.name, END_SECS)
            elif code != 0:
                log.warning("%s ended with %s", handle.name, describe_exit(code))

    def _start(self, role: str, index: int, *, replaces: bool = False) -> None:
        spec = self._processes.task(role, index, self._chief, replaces=replaces)
        self._tasks[role, index] = self._lives.start(spec, self._chief)

    def _start_spare(self, number: int) -> ProcessHandle:
        """Starts a spare beyond the requested number."""
        spec = self._processes.task(SPARE, self._processes.spares + number, self._chief)
        return self._lives.start(spec, self._chief)

    def _start_what_is_wanted(self, status: pb.JobStatus) -> None:
        """Starts tasks for a job that grows; the chief dismisses those of a shrinking one."""
        for index in range(self._wanted["worker"], status.wanted_workers):
            self._start("worker", index)
        for _ in range(self._wanted["ps"], status.wanted_ps):
            # It stands by until the model is made ready for it.
            self._start(SPARE, sum(role == SPARE for role, _ in self._tasks))
        self._wanted = {"worker": status.wanted_workers, "ps": status.wanted_ps}

    def _replace(self, task: tuple[str, int], handle: ProcessHandle, code: int, state: str) -> str:
        """Restarts a task whose process was killed; a task that failed has told the chief.

        Returns:
            The reason why the job has to stop; empty if it can continue.
        """
        role, index = task
        if failed_before_it_joined(role, code, state):
            return f"{handle.name} failed before it joined: {describe_end(handle, code)}"
        if role != "worker" and (follower := self._ahead.take()) is not None:
            self._tasks[task] = follower
        elif is_worth_a_restart(role, code, state):
            try:
                if self._restarts.is_due_after(handle.name, code):
                    # A place that was never held is not filled by a spare.
                    self._start(role, index, replaces=bool(state))
            except BudgetSpent as spent:
                return f"{handle.name}: {describe_end(handle, code)}; {spent}"
        return ""

    def _end_if_overdue(self, task: tuple[str, int], handle: ProcessHandle, state: str) -> None:
        if self._hosts_parameters:
            return  # It may hold parameters still.
        if self._overdue.is_to_be_killed(task, handle, state):
            log.warning("%s is lost to the chief, and does not end: it is killed", handle.name)
            handle.send_signal(signal.SIGKILL)
