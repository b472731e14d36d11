"""`Simulation`: simulated tasks in a few processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from ...cluster.token import TOKEN_VARIABLE, Right, Token
from ...errors import JobFailed

# More connections are opened one thousand after the other.
AT_ONCE = 1000
_END_SECS = 10.0


@dataclass(frozen=True)
class Registered:
    """The outcome of a registration of many tasks.

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
        token: Of the job.
    """

    def __init__(self, chief: str, processes: int, token: Token) -> None:
        command = [sys.executable, "-m", f"{__package__}.tasks", chief]
        environment = {**os.environ, TOKEN_VARIABLE: token.for_right(Right.MEMBER)}
        pipe = subprocess.PIPE
        self._children = [
            subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
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
        """Makes tasks join the job, up to `AT_ONCE` of them at once."""
        self._ask_all({"do": "take"} for _ in self._children)  # They have started.
        began = ended = time.monotonic()
        registered = 0
        for first in range(0, count, AT_ONCE):
            commands = self._shares(role, min(AT_ONCE, count - first), max_wait_secs)
            answers = self._ask_all(commands)
            ended = max(ended, *(answer["ended"] for answer in answers))
            registered += sum(answer["registered"] for answer in answers)
        return Registered(registered, ended - began)

    def _shares(self, role: str, count: int, max_wait_secs: float) -> Iterator[dict[str, Any]]:
        """Commands to register, one for each process."""
        for number in range(len(self._children)):
            share = len(range(number, count, len(self._children)))
            yield {
                "do": "register",
                "role": role,
                "first": self._tasks,
                "count": share,
                "max_wait_secs": max_wait_secs,
            }
            self._tasks += share

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
