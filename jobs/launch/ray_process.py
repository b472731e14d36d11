"""A process on a node of a Ray cluster, and the actor there that starts and watches it.

A TensorFlow server cannot be stopped inside a process, so the role runs in a process of its own
beside the actor: it gets the actor's GPUs, it can be signalled, and it has an exit code.
"""

from __future__ import annotations

import logging
import signal
import time
from typing import Any

from .child import ChildProcess
from .forked import ForkServer
from .interface import ProcessSpec

log = logging.getLogger(__name__)

_CALL_SECS = 30.0
# The exit code of a lost actor: its process died with it.
_NODE_LOST = -signal.SIGKILL
_COUNTED = ("CPU", "GPU")
# After so many seconds without a node, the log reports it.
_PLACE_SECS = 15.0


class RayProcess:
    """A process watched by an actor.

    Args:
        spec: The process to start.
        actor: Starts it, as soon as Ray has a node for it.
        ray: The connected module.
        host: Address under which other machines reach it; None: that of the node.

    Attributes:
        name: The process's name.
        actor: The actor that watches it.
        gpus: GPUs that it needs, as Ray counts them.
        is_lost: True if the actor is gone, with its node or by itself.
    """

    def __init__(self, spec: ProcessSpec, actor: Any, ray: Any, host: str | None) -> None:
        self.name = spec.name
        self.actor = actor
        self.is_lost = False
        self.gpus = spec.gpus
        self._ray = ray
        self._starting: Any = actor.start.remote(spec, host)
        self._asked = time.monotonic()
        self._is_told = False
        self._code: int | None = None

    def poll(self) -> int | None:
        """Returns the exit code; negative for a signal; None while it runs, or waits for a node.

        Raises:
            RayError: The actor could not start it.
        """
        if self._code is None and self._has_started():
            code: int | None = self._call("poll")
            self._code = self._code if self.is_lost else code
        return self._code

    def send_signal(self, signum: int) -> None:
        """Sends a signal; a process that is gone is no error."""
        if self._has_started():
            self._call("send_signal", signum)

    def log_tail(self, lines: int) -> list[str]:
        """Returns the last lines of its output, or why there is none."""
        if not self._has_started():
            return [self._wants_a_place()]
        tail: list[str] | None = self._call("log_tail", lines)
        return tail or []

    def read_file(self, path: str) -> str | None:
        """Returns a file on the host where the process runs; None when there is none."""
        content: str | None = self._call("read_file", path) if self._has_started() else None
        return content

    def end(self) -> None:
        """Kills the process if it still runs, and its actor."""
        if self._has_started() and not self.is_lost:
            self._call("end")
        self._ray.kill(self.actor)

    def waits_for(self) -> str:
        """Returns the reason why it has not started; empty once it has."""
        return "" if self._has_started() else self._wants_a_place()

    def _has_started(self) -> bool:
        if self._starting is None:
            return True
        if not self._ray.wait([self._starting], timeout=0)[0]:
            self._say_if_overdue()
            return False
        starting, self._starting = self._starting, None
        try:
            self._ray.get(starting)
        except self._ray.exceptions.RayActorError:
            self._lose()
        return True

    def _say_if_overdue(self) -> None:
        if not self._is_told and time.monotonic() - self._asked > _PLACE_SECS:
            self._is_told = True
            log.warning("%s", self._wants_a_place())

    def _wants_a_place(self) -> str:
        secs = time.monotonic() - self._asked
        has = {name: n for name, n in self._ray.cluster_resources().items() if name in _COUNTED}
        return (
            f"Ray has found no node for {self.name} in {secs:.0f} s: it needs {self.gpus:g} GPUs "
            f"and 1 CPU; the whole cluster has {has}"
        )

    def _call(self, method: str, *arguments: Any) -> Any:
        """Calls the actor; None also if it does not answer now: Ray will detect its loss."""
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(getattr(self.actor, method).remote(*arguments), timeout=_CALL_SECS)
        except (exceptions.ActorUnavailableError, exceptions.GetTimeoutError):
            return None
        except exceptions.RayActorError:
            self._lose()
            return None

    def _lose(self) -> None:
        self.is_lost = True
        # If it still lives, its process would be one too many.
        self._ray.kill(self.actor)
        if self._code is None:
            self._code = _NODE_LOST


class ProcessActor:
    """Runs on the node: owns one child process at a time."""

    def __init__(self) -> None:
        self._forks = ForkServer()
        self._child: ChildProcess | None = None

    def start(self, spec: ProcessSpec, host: str | None) -> None:
        """Starts a process in the place of the former one."""
        import ray

        if self._child is not None:
            self._child.end()
        self._child = ChildProcess(spec, host or ray.util.get_node_ip_address(), self._forks)

    def poll(self) -> int | None:
        """Works as in `ProcessHandle`, like the next three."""
        return self._owned().poll()

    def send_signal(self, signum: int) -> None:
        """Sends a signal."""
        self._owned().send_signal(signum)

    def log_tail(self, lines: int) -> list[str]:
        """Returns the last lines of the process's output."""
        return self._owned().log_tail(lines)

    def read_file(self, path: str) -> str | None:
        """Returns a file of this node."""
        return self._owned().read_file(path)

    def end(self) -> None:
        """Kills the process if it still runs, and its fork server."""
        self._forks.close()
        self._owned().end()

    def _owned(self) -> ChildProcess:
        if self._child is None:
            raise RuntimeError("start() comes first")
        return self._child
