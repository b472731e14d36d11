"""`Trial`: one measurement of one system, from the start of its processes to their end."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .board import Ask, Board, Mark, State
from .network import Network
from .processes import Child, Processes
from .systems import System
from .task import Mode, Task

Status = Literal["ok", "failed", "hung", "skipped"]
_POLL_SECS = 0.05
# Looking after the processes takes a little of the cores that are being measured.
_WINDOW_POLL_SECS = 0.25
_ENOUGH_STEPS = 20
_LONGEST_WINDOW = 4
_LOG_LINES = 4


@dataclass(frozen=True)
class Settings:
    """The conditions of each trial of a comparison.

    Attributes:
        workers: Number of workers.
        ps: Number of parameter servers.
        secs: Length of the measured window in seconds; it becomes up to four times as long to take
            in 20 global steps.
        steps: Instead of `secs`: the window ends when so many global steps are done.
        warmup_secs: Seconds from the last process's first step to the window.
        threads: Threads of one operation, for every system; None: cores divided by workers.
        max_wait_secs: Bound of each wait; a longer wait counts as hung.
    """

    workers: int = 2
    ps: int = 1
    secs: float = 4.0
    steps: int | None = None
    warmup_secs: float = 1.5
    threads: int | None = None
    max_wait_secs: float = 90.0

    def task_threads(self) -> int:
        """Threads of one operation."""
        return self.threads or max(1, len(os.sched_getaffinity(0)) // self.workers)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a trial.

    Attributes:
        status: "ok", "failed" (a process ended), "hung" (no progress in time), or "skipped".
        detail: The reason, if not "ok".
        steps_per_sec: Global steps per second.
        sent_bytes: Bytes that crossed the network per global step, with headers and any other
            traffic on loopback.
        cpu_secs: Seconds of processor time per global step, of all processes together.
        counts: The transfers counted in one step of one worker.
    """

    status: Status
    detail: str = ""
    steps_per_sec: float | None = None
    sent_bytes: float | None = None
    cpu_secs: float | None = None
    counts: Mapping[str, float] = field(default_factory=dict)


class _Failed(Exception):
    """A process ended."""


class _Hung(Exception):
    """Something did not come in time."""


class Trial:
    """A measurement; `run` does it once.

    Args:
        system: The system to measure.
        workload: Name of the workload.
        mode: "async" or "sync".
        settings: The conditions.
        processes: Starts its processes.
        network: Gives the processes their addresses.
        count: True to have one step's transfers counted after the window.
    """

    def __init__(
        self,
        system: System,
        workload: str,
        mode: Mode,
        settings: Settings,
        processes: Processes,
        network: Network,
        *,
        count: bool = False,
    ) -> None:
        self._system = system
        self._workload = workload
        self._mode = mode
        self._settings = settings
        self._wait_secs = settings.max_wait_secs
        self._processes = processes
        self._network = network
        self._count = count
        self._tasks: list[Task] = []
        self._children: list[Child] = []
        self._boards: dict[str, Board] = {}

    def run(self) -> Outcome:
        """Starts all processes, measures, and ends them whatever happens."""
        # A short path: Ray puts Unix sockets below it.
        folder = tempfile.mkdtemp(prefix="psb")
        try:
            self._start(folder)
            self._await_ready()
            self._watch(self._settings.warmup_secs)
            return self._measure()
        except _Failed as error:
            return Outcome("failed", str(error))
        except _Hung as error:
            return Outcome("hung", str(error))
        finally:
            self._processes.end_all()
            for board in self._boards.values():
                board.close()
            shutil.rmtree(folder, ignore_errors=True)

    def _start(self, folder: str) -> None:
        settings = self._settings
        counts = self._system.task_counts(settings.workers, settings.ps)
        places = iter(self._network.places(sum(counts.values())))
        located = {role: [next(places) for _ in range(count)] for role, count in counts.items()}
        addresses = {role: tuple(p.address for p in each) for role, each in located.items()}
        for role, each in located.items():
            for index, place in enumerate(each):
                task = Task(
                    program=self._system.program,
                    role=role,
                    index=index,
                    addresses=addresses,
                    workload=self._workload,
                    mode=self._mode,
                    folder=folder,
                    threads=settings.task_threads(),
                    max_wait_secs=self._wait_secs,
                    network=place.network,
                    options={**self._system.options, **self._extra_options()},
                )
                self._tasks.append(task)
                self._boards[task.name] = task.board(create=True)
        for task in self._tasks:
            self._children.append(self._processes.start(task, fork=self._system.fork))

    def _extra_options(self) -> dict[str, int]:
        # A system that starts workers itself has to know their number.
        return {} if "worker" in self._system.roles else {"workers": self._settings.workers}

    def _await_ready(self) -> None:
        deadline = time.monotonic() + self._wait_secs
        while waiting := [n for n, b in self._boards.items() if b.state < State.READY]:
            self._check()
            if time.monotonic() > deadline:
                raise _Hung(f"no first step of {', '.join(waiting)} in {self._wait_secs:g} s")
            time.sleep(_POLL_SECS)

    def _measure(self) -> Outcome:
        sent, busy = self._network.sent_bytes(), self._processes.cpu_secs()
        steps = self._trainer_steps()
        begin = self._marks()
        end = self._end_of_window(begin)
        sent = self._network.sent_bytes() - sent
        busy = self._processes.cpu_secs() - busy
        self._check_progress(steps)
        done = sum(b.step - a.step for a, b in zip(begin, end, strict=True))
        if done <= 0:
            raise _Hung(f"the global step stayed at {end[0].step} in the window")
        rate = sum((b.step - a.step) / (b.secs - a.secs) for a, b in zip(begin, end, strict=True))
        return Outcome(
            "ok",
            steps_per_sec=rate,
            sent_bytes=sent / done,
            cpu_secs=busy / done,
            counts=self._counts() if self._count else {},
        )

    def _readers(self) -> list[str]:
        """Returns the processes to ask for the global step."""
        role = self._system.reader
        summed = self._system.sums and self._mode == "async"
        return [task.name for task in self._tasks if task.role == role][: None if summed else 1]

    def _marks(self) -> list[Mark]:
        names = self._readers()
        for name in names:
            self._boards[name].ask(Ask.MARK)
        return [self._answer(name) for name in names]

    def _answer(self, name: str) -> Mark:
        deadline = time.monotonic() + self._wait_secs
        while (mark := self._boards[name].answered()) is None:
            self._check()
            if time.monotonic() > deadline:
                raise _Hung(f"{name} did not end its step in {self._wait_secs:g} s")
            time.sleep(_POLL_SECS / 10)
        return mark

    def _watch(self, secs: float) -> None:
        """Waits, and notices when a process ends."""
        deadline = time.monotonic() + secs
        while (left := deadline - time.monotonic()) > 0:
            self._check()
            time.sleep(min(_WINDOW_POLL_SECS, left))

    def _end_of_window(self, begin: list[Mark]) -> list[Mark]:
        secs, steps = self._settings.secs, self._settings.steps
        deadline = time.monotonic() + (secs * _LONGEST_WINDOW if steps is None else self._wait_secs)
        self._watch(secs if steps is None else 0.0)
        while True:
            end = self._marks()
            done = sum(mark.step for mark in end) - sum(mark.step for mark in begin)
            if done >= (steps or _ENOUGH_STEPS):
                return end
            if time.monotonic() > deadline:
                if steps is None:
                    return end
                raise _Hung(f"{done} of {steps} steps in {self._wait_secs:g} s")
            self._watch(_WINDOW_POLL_SECS)

    def _trainer_steps(self) -> dict[str, int]:
        return {
            task.name: self._boards[task.name].steps
            for task in self._tasks
            if task.role in self._system.trainers
        }

    def _check_progress(self, before: Mapping[str, int]) -> None:
        """Allows a trainer without a step in the window to be in the middle of one."""
        deadline = time.monotonic() + self._wait_secs
        for name, steps in before.items():
            while self._boards[name].steps == steps:
                self._check()
                if time.monotonic() > deadline:
                    raise _Hung(f"{name} did no step in {self._wait_secs:g} s")
                time.sleep(_POLL_SECS)

    def _check(self) -> None:
        for task, child in zip(self._tasks, self._children, strict=True):
            code = child.poll()
            if code is not None:
                raise _Failed(f"{task.name} ended with exit code {code}: {_log_tail(task)}")

    def _counts(self) -> dict[str, float]:
        name = self._readers()[0]
        self._boards[name].ask(Ask.COUNT)
        try:
            self._answer(name)
        except (_Failed, _Hung):
            return {}
        task = next(task for task in self._tasks if task.name == name)
        counts: dict[str, float] = json.loads(task.count_path.read_text())
        return counts


def _log_tail(task: Task) -> str:
    """Returns the last lines that a process printed, in one."""
    text = task.log_path.read_text(errors="replace") if task.log_path.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-_LOG_LINES:]) or "it printed nothing"
