"""Recovery of other systems from the same kills: their processes are restarted at once.

Each runs as its guide has it, and saves a checkpoint every few seconds. A supervisor restarts a
process in its place as soon as it has ended, as a job controller does.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import WaitTimeout
from .board import Ask, Board, Mark, State
from .kills import Kill
from .network import Loopback
from .processes import Child, Processes
from .systems import System, all_systems
from .task import Task

WORKLOAD = "many-small"
SAVE_SECS = 5.0
# A recovery that takes longer counts as hung.
MAX_WAIT_SECS = 120.0
_LOOK_SECS = 0.02
# A checkpoint may not be there earlier.
_SETTLE_SECS = 2 * SAVE_SECS

# Peers, with the role that corresponds to our chief.
PEERS = {"stock": "worker-0", "psstrategy": "coordinator-0"}


def measure_peer(peer: str, role: str, kills: int, pause_secs: float) -> Iterator[Kill]:
    """Trains with a peer on 2 parameter servers and 2 workers, and kills processes one by one.

    Args:
        peer: One of `PEERS`.
        role: "ps", "worker" or "chief".
        kills: How many.
        pause_secs: From a recovery to the next kill, at least.

    Raises:
        WaitTimeout: It did not begin to train.
    """
    chance = random.Random(0)
    with _Supervised(all_systems()[peer]) as job:
        job.await_steps(None)
        for _ in range(kills):
            time.sleep(max(pause_secs, _SETTLE_SECS) + 2 * chance.random())
            kill = job.kill(chance.choice(_doomed(job.names, peer, role)))
            yield kill
            if not math.isfinite(kill.secs):
                return  # It hangs: there is nothing left to kill.


def _doomed(names: list[str], peer: str, role: str) -> list[str]:
    if role == "chief":
        return [PEERS[peer]]
    return [name for name in names if name.startswith(role) and name != PEERS[peer]]


class _Supervised:
    """A peer's processes, each restarted when it ends, until the context is left."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._stack = contextlib.ExitStack()
        self._processes = Processes()
        self._children: dict[str, Child] = {}
        self._tasks: dict[str, Task] = {}
        self._boards: dict[str, Board] = {}

    def __enter__(self) -> _Supervised:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="recovery-peers-"))
        self._stack.enter_context(self._processes)
        for task in self._make_tasks(folder):
            self._tasks[task.name] = task
            self._boards[task.name] = task.board(create=True)
            self._children[task.name] = self._processes.start(task, fork=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def names(self) -> list[str]:
        """Names of all processes, as "ps-0"."""
        return list(self._tasks)

    def await_steps(self, killed: float | None) -> Mark | None:
        """Waits until a trainer has made a step that it began after a moment.

        Args:
            killed: The moment, by the monotonic clock; None: now, and it has to come.

        Returns:
            The step; None: there was none in time.

        Raises:
            WaitTimeout: There was none in time, and it had to come.
        """
        trainers = [n for n in self._tasks if n.startswith(self._system.reader)]
        deadline = time.monotonic() + MAX_WAIT_SECS
        asked: dict[str, int] = dict.fromkeys(trainers, 0)
        while time.monotonic() < deadline:
            self._start_again_what_ended()
            for name in trainers:
                board = self._boards[name]
                if board.state < State.READY or (mark := board.answered()) is None:
                    continue
                # The first answer may be of a step that was made before the kill.
                if asked[name] >= 2:
                    return mark
                asked[name] += 1
                board.ask(Ask.MARK)
            time.sleep(_LOOK_SECS)
        if killed is None:
            raise WaitTimeout(f"{self._system.name} made no step in {MAX_WAIT_SECS:g} s")
        return None

    def kill(self, name: str) -> Kill:
        """Kills a process and waits for the next step."""
        before, rate = self._rate()
        killed = time.monotonic()
        os.kill(self._children[name].pid, signal.SIGKILL)
        after = self.await_steps(killed)
        if after is None:
            return Kill(math.inf, 0, 0.0)
        lost = max(0, before - after.step)
        return Kill(after.secs - killed, lost, lost / rate)

    def _rate(self) -> tuple[int, float]:
        first = self.await_steps(None)
        time.sleep(0.5)
        second = self.await_steps(None)
        assert first is not None
        assert second is not None
        rate = (second.step - first.step) / max(second.secs - first.secs, 1e-9)
        return second.step, max(rate, 1e-9)

    def _start_again_what_ended(self) -> None:
        for name, child in self._children.items():
            if child.poll() is not None:
                self._children[name] = self._processes.start(self._tasks[name], fork=False)

    def _make_tasks(self, folder: str) -> list[Task]:
        counts = self._system.task_counts(workers=2, ps=2)
        places = iter(Loopback().places(sum(counts.values())))
        addresses = {
            role: tuple(next(places).address for _ in range(n)) for role, n in counts.items()
        }
        options = {
            **self._system.options,
            "checkpoint_dir": str(Path(folder, "checkpoints")),
            "save_checkpoint_secs": SAVE_SECS,
        }
        make: Callable[..., Task] = Task
        return [
            make(
                program=self._system.program,
                role=role,
                index=index,
                addresses=addresses,
                workload=WORKLOAD,
                mode="async",
                folder=folder,
                threads=1,
                max_wait_secs=MAX_WAIT_SECS,
                options=options,
            )
            for role, count in counts.items()
            for index in range(count)
        ]
