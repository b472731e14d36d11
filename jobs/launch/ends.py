"""The meaning of the end of a job's process."""

from __future__ import annotations

import signal

from ...errors import ExitCode
from .interface import ProcessHandle

LOG_LINES = 15
# A signal asked it to end, and it ended by itself.
_ASKED = (ExitCode.INTERRUPTED, ExitCode.PREEMPTED)


def last_error(handle: ProcessHandle) -> str | None:
    """Returns the message with which a command of ours ended; None if it had none."""
    said = [line for line in handle.log_tail(LOG_LINES) if line.startswith("error: ")]
    return said[-1].removeprefix("error: ") if said else None


def describe_exit(code: int) -> str:
    """Describes the end of a process."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def describe_end(handle: ProcessHandle, code: int) -> str:
    """Describes why a process ended, in its own words if it had any."""
    return last_error(handle) or describe_exit(code)


def was_preempted(code: int) -> bool:
    """Returns whether a process with this exit code left after a signal."""
    return code in _ASKED


def failed_before_it_joined(role: str, code: int, state: str) -> bool:
    """Returns whether a process could not even start; a restart would not help.

    Args:
        role: "ps", "spare" or "worker".
        code: Its exit code.
        state: State of its task in the job's status; "" if it never was in the job. "preempted"
            belongs to the former life.
    """
    is_unknown = role != "spare" and state in ("", "preempted")
    return code > 0 and is_unknown and not was_preempted(code)


def is_worth_a_restart(role: str, code: int, state: str) -> bool:
    """Returns whether a process ended through no fault of its own.

    A worker that failed has reported that, and the job fails with it; a job is never without its
    parameter servers.

    Args:
        role: "ps", "spare" or "worker".
        code: Its exit code.
        state: As in `failed_before_it_joined`.
    """
    was_killed = code < 0 or was_preempted(code)
    return was_killed or state == "lost" or (role in ("ps", "spare") and code != 0)
