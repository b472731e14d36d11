"""The interface of all launchers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ..handover import options_to_json


@dataclass(frozen=True)
class ProcessSpec:
    """A process to start.

    Attributes:
        name: For people, and for its log file: "worker-0".
        arguments: The `paramserve` command and the model, if it takes one.
        log_path: File that takes its output, on the host where it runs.
        options: Of the command, by name, without the host.
        incarnation: Unique to this life of the process; among its options.
        gpus: GPUs it needs, as Ray counts them.
        env: Added to the environment.
        niceness: How far it stands back for other processes of its host, as `nice` counts.
    """

    name: str
    arguments: tuple[str, ...]
    log_path: str
    options: Mapping[str, Any] = field(default_factory=dict)
    incarnation: str = ""
    gpus: float = 0.0
    env: Mapping[str, str] = field(default_factory=dict, repr=False)  # It may have a token.
    niceness: int = 0

    def command(self, host: str) -> list[str]:
        """Returns all arguments of the command.

        Args:
            host: Name or address under which others reach the host where it runs.
        """
        return [*self.arguments, "--options", options_to_json({**self.options, "host": host})]


class ProcessHandle(Protocol):
    """A process that was started."""

    name: str

    def poll(self) -> int | None:
        """Returns the exit code; negative for a signal; None while the process runs."""

    def send_signal(self, signum: int) -> None:
        """Sends a signal; a process that is gone is no error."""

    def waits_for(self) -> str:
        """Returns the reason why it has not started; empty once it has."""

    def log_tail(self, lines: int) -> list[str]:
        """Returns the last lines of its output."""

    def read_file(self, path: str) -> str | None:
        """Returns a file on the host where the process runs; None when there is none."""


@runtime_checkable
class Launcher(Protocol):
    """Starts processes, on this host or others."""

    def start(self, spec: ProcessSpec) -> ProcessHandle:
        """Starts a process and returns at once."""

    def close(self) -> None:
        """Ends all running processes, and the launcher's own helpers."""
