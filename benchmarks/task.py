"""`Task`: the description of one process of a measured system, and its way to report progress."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

from .board import Ask, Board, State
from .workloads.catalog import find_workload
from .workloads.workload import Workload

Mode = Literal["async", "sync"]
MODES: tuple[Mode, ...] = ("async", "sync")
_POLL_SECS = 0.02


@dataclass(frozen=True)
class Task:
    """One process of a measured system.

    Attributes:
        program: Full name of the module whose `run` it calls.
        role: Such as "ps" or "worker".
        index: Among those of its role.
        addresses: "host:port" of every process, by role.
        workload: Name of the workload.
        mode: "async" or "sync".
        folder: Folder of this run: boards and logs.
        threads: Threads of one operation (intra-op), the same for every system.
        max_wait_secs: Bound of each wait.
        network: Network namespace to enter, or None.
        options: Options of this variant of the system.
    """

    program: str
    role: str
    index: int
    addresses: Mapping[str, tuple[str, ...]]
    workload: str
    mode: Mode
    folder: str
    threads: int
    max_wait_secs: float
    network: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Such as "worker-0"."""
        return f"{self.role}-{self.index}"

    @property
    def address(self) -> str:
        """Its own "host:port"."""
        return self.addresses[self.role][self.index]

    @property
    def log_path(self) -> Path:
        """The file of its output."""
        return Path(self.folder) / f"{self.name}.log"

    @property
    def count_path(self) -> Path:
        """The file of its counts, as JSON."""
        return Path(self.folder) / f"{self.name}.count.json"

    def to_json(self) -> str:
        """Converts it to JSON, in one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Reads the result of `to_json`."""
        return cls(**json.loads(text))

    def find_workload(self) -> Workload:
        """Returns the workload that it trains."""
        return find_workload(self.workload)

    def board(self, role: str | None = None, index: int = 0, *, create: bool = False) -> Board:
        """Opens its own board, or that of another process of the run."""
        name = self.name if role is None else f"{role}-{index}"
        return Board(Path(self.folder) / f"{name}.board", create=create)

    def is_open(self) -> None:
        """Tells that others may use the model now."""
        self.board().state = State.OPEN

    def await_open(self, role: str, index: int = 0) -> None:
        """Waits until another process has opened the model.

        Raises:
            TimeoutError: It did not within `max_wait_secs`.
        """
        board = self.board(role, index)
        deadline = time.monotonic() + self.max_wait_secs
        while board.state < State.OPEN:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{role} {index} is not open after {self.max_wait_secs:g} s")
            time.sleep(_POLL_SECS)

    def serve(self) -> NoReturn:
        """Tells that it serves, until the harness ends it."""
        self.board().state = State.READY
        while True:
            time.sleep(3600)

    def train(
        self,
        step: Callable[[], object],
        global_step: Callable[[], int] | None,
        count: Callable[[], Mapping[str, float]] | None = None,
    ) -> NoReturn:
        """Makes steps until the harness ends the process.

        Args:
            step: Makes one step.
            global_step: Returns the updates of the model so far, by all workers; None for the steps
                of this process.
            count: Makes one step and counts its transfers.
        """
        board = self.board()
        step()
        steps = 1
        board.state = State.READY
        while True:
            step()
            steps += 1
            board.steps = steps
            asked = board.asked()
            if asked is Ask.MARK:
                board.answer(steps if global_step is None else int(global_step()))
            elif asked is Ask.COUNT:
                self.count_path.write_text(json.dumps(dict(count()) if count else {}))
                board.answer()
