"""`Simulation`: simulated tasks in a few processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from ...errors import JobFailed

_END_SECS = 10.0


@dataclass(frozen=True)
class Registered:
    """The outcome of a registration of many tasks at once.

    Attributes:
        tasks: How many are in the job.
        secs: From the first call to the last answer.
    """

    tasks: int
    secs: float


@dataclass(frozen=True)
class Seen:
    """The observations of all simulated tasks since the last call.

    Attributes:
        answer_secs: Seconds from each heartbeat to its answer, in ascending order.
        unanswered: Heartbeats without an answer in time.
        lost: Tasks that the chief declared lost, from the beginning.
        lag_secs: By how much the processes of the simulation were late, in ascending order.
        over: By generation, when each task heard that it is over.
        ready: By generation, when each worker had its view.
    """

    answer_secs: list[float]
    unanswered: int
    lost: int
    lag_secs: list[float]
    over: dict[int, list[float]]
    ready: dict[int, list[float]]


class Simulation:
    """Simulated tasks; a context manager, which ends them with their processes.

    Args:
        chief: The address of the chief.
        processes: Number of processes that share the tasks.
    """

    def __init__(self, chief: str, processes: int) -> None:
        command = [sys.executable, "-m", f"{__package__}.tasks", chief]
        self._children = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        self._tasks = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for child in self._children:
            child.kill()
        for child in self._children:
            child.wait(_END_SECS)

    def register(self, role: str, count: int, max_wait_secs: float) -> Registered:
        """Makes tasks join the job, all at once."""
        shares = [
            len(range(number, count, len(self._children))) for number in range(len(self._children))
        ]
        self._ask_all({"do": "take"} for _ in shares)  # They have started.
        began = time.monotonic()
        commands = []
        for share in shares:
            commands.append(
                {
                    "do": "register",
                    "role": role,
                    "first": self._tasks,
                    "count": share,
                    "max_wait_secs": max_wait_secs,
                }
            )
            self._tasks += share
        answers = self._ask_all(commands)
        ended = max(answer["ended"] for answer in answers)
        return Registered(sum(a["registered"] for a in answers), max(0.0, ended - began))

    def take(self) -> Seen:
        """Takes what was seen since the last time."""
        answers = self._ask_all({"do": "take"} for _ in self._children)
        return Seen(
            answer_secs=sorted(secs for each in answers for secs in each["answer_secs"]),
            unanswered=sum(each["unanswered"] for each in answers),
            lost=sum(each["lost"] for each in answers),
            lag_secs=sorted(secs for each in answers for secs in each["lag_secs"]),
            over=_merged(each["over"] for each in answers),
            ready=_merged(each["ready"] for each in answers),
        )

    def _ask_all(self, commands: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Gives each process its command, then waits for all answers."""
        for child, command in zip(self._children, commands, strict=True):
            assert child.stdin is not None
            child.stdin.write(json.dumps(command) + "\n")
            child.stdin.flush()
        return [self._answer(child) for child in self._children]

    def _answer(self, child: subprocess.Popen[str]) -> dict[str, Any]:
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line:
            raise JobFailed(f"a process of simulated tasks ended with code {child.wait(_END_SECS)}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _merged(parts: Iterable[dict[str, list[float]]]) -> dict[int, list[float]]:
    whole: dict[int, list[float]] = {}
    for part in parts:
        for generation, times in part.items():
            whole.setdefault(int(generation), []).extend(times)
    return whole
