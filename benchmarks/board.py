"""`Board`: the messages between the harness and a process while it trains.

A few numbers in a mapped file: writing one costs a step nothing worth mentioning, works between
network namespaces, and sends no bytes over the network that is being measured.
"""

from __future__ import annotations

import enum
import mmap
import struct
import time
from dataclasses import dataclass
from pathlib import Path

_FIELD = struct.Struct("=q")
_STATE, _STEPS, _ASKED, _KIND, _ANSWERED, _TIME_NS, _GLOBAL_STEP = range(7)
_SIZE = 4096


class State(enum.IntEnum):
    """The progress of a process: STARTED -> OPEN -> READY.

    OPEN: other processes can use the model. READY: it has made its first step, or serves.
    """

    STARTED = 0
    OPEN = 1
    READY = 2


class Ask(enum.IntEnum):
    """A request of the harness to a process, between two of its steps."""

    MARK = 0
    COUNT = 1


@dataclass(frozen=True)
class Mark:
    """The global step at a moment.

    Attributes:
        secs: Seconds of the monotonic clock, which all processes of a machine share.
        step: Updates of the model so far.
    """

    secs: float
    step: int


class Board:
    """One process's board.

    Args:
        path: Its file.
        create: True to make the file; the harness does, before the process starts.
    """

    def __init__(self, path: str | Path, *, create: bool = False) -> None:
        if create:
            Path(path).write_bytes(bytes(_SIZE))
        with Path(path).open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)

    def close(self) -> None:
        """Unmaps the file."""
        self._map.close()

    @property
    def state(self) -> State:
        """The progress of the process."""
        return State(self._get(_STATE))

    @state.setter
    def state(self, state: State) -> None:
        self._set(_STATE, state)

    @property
    def steps(self) -> int:
        """Steps that this process has done."""
        return self._get(_STEPS)

    @steps.setter
    def steps(self, steps: int) -> None:
        self._set(_STEPS, steps)

    def ask(self, kind: Ask) -> None:
        """Asks the process, as the harness; one question at a time."""
        self._set(_KIND, kind)
        self._set(_ASKED, self._get(_ASKED) + 1)

    def asked(self) -> Ask | None:
        """Returns the request that the process has not answered yet, or None."""
        if self._get(_ASKED) == self._get(_ANSWERED):
            return None
        return Ask(self._get(_KIND))

    def answer(self, step: int = 0) -> None:
        """Answers, as the process, with its global step if that was asked."""
        self._set(_TIME_NS, time.monotonic_ns())
        self._set(_GLOBAL_STEP, step)
        self._set(_ANSWERED, self._get(_ASKED))

    def answered(self) -> Mark | None:
        """Returns the answer to the last question, or None as long as there is none."""
        if self._get(_ASKED) != self._get(_ANSWERED):
            return None
        return Mark(self._get(_TIME_NS) / 1e9, self._get(_GLOBAL_STEP))

    def _get(self, field: int) -> int:
        value: int = _FIELD.unpack_from(self._map, field * _FIELD.size)[0]
        return value

    def _set(self, field: int, value: int) -> None:
        _FIELD.pack_into(self._map, field * _FIELD.size, value)
