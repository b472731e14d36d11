"""Why a job failed, by the logs of its processes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from ..cluster.startup_noise import is_noise
from ..errors import ExitCode, JobFailed, ParamserveError, UsageError, WaitTimeout
from .launch.ends import LOG_LINES, describe_exit, last_error
from .launch.interface import ProcessHandle
from .launch.restarts import BudgetSpent
from .processes import JobProcesses

# A disk with less than this takes no line of a log any more, or next to none.
_LEAST_BYTES = 64 * 1024
# A process that failed ends within so many seconds, or hangs.
_FINAL_ERROR_SECS = 5.0


class PostMortem:
    """Explains a job that failed.

    Args:
        processes: Says where the logs are.
    """

    def __init__(self, processes: JobProcesses) -> None:
        self._log_folder = processes.log_folder
        self._uses_gpus = bool(processes.gpus_per_worker)

    def explain(
        self,
        chief: ProcessHandle,
        code: int | None,
        tasks: Sequence[ProcessHandle],
        spent: BudgetSpent | None,
    ) -> ParamserveError:
        """Makes the error of a job from the chief's last message and the failed task's log.

        Args:
            chief: The chief's process, which has ended.
            code: Its exit code; None: it was lost.
            tasks: The processes of the other tasks.
            spent: The reason why the chief was not restarted, if it would have been.
        """
        message = last_error(chief)
        if message is None:
            how = describe_exit(code) if code is not None else "lost"
            why = f"{how}; {spent}" if spent else how
            why += _describe_full_disk(self._log_folder)
            return JobFailed(f"{chief.name}: {why}\n{self.tail(chief)}")
        kinds = {ExitCode.USAGE: UsageError, ExitCode.TIMED_OUT: WaitTimeout}
        kind = kinds.get(ExitCode(code) if code in set(ExitCode) else ExitCode.FAILED, JobFailed)
        failed = message.partition(" ")[0].rstrip(":").replace(":", "-")
        culprit = next((h for h in tasks if h.name == failed), None)
        if culprit is None and kind is JobFailed:
            culprit = chief
        if kind is WaitTimeout:  # The chief cannot know why a task never started.
            unplaced = filter(None, (each.waits_for() for each in tasks))
            message = "; ".join([*unplaced, message])
        return kind(f"{message}\n{self._read_on(culprit)}" if culprit else message)

    def _read_on(self, handle: ProcessHandle) -> str:
        """Names the log with the whole error; its end if the process did not say why it ended."""
        # The chief hears of a failure before the process has written its error.
        deadline = time.monotonic() + _FINAL_ERROR_SECS
        while handle.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if last_error(handle) is None:
            return self.tail(handle)
        return f"the whole error is in {self._log_path(handle)}"

    def _log_path(self, handle: ProcessHandle) -> Path:
        return self._log_folder / f"{handle.name}.log"

    def tail(self, handle: ProcessHandle) -> str:
        """Returns the end of a process's log, with the path of it."""
        path = self._log_path(handle)
        lines = handle.log_tail(LOG_LINES)
        if not self._uses_gpus:
            lines = [line for line in lines if not is_noise(line)]
        return "\n".join([f"the end of {path}:", *(f"  {line}" for line in lines)])


def _describe_full_disk(folder: Path) -> str:
    """Explains why a process wrote no error: a full disk takes none."""
    try:
        is_full = shutil.disk_usage(folder).free < _LEAST_BYTES
    except OSError:
        return ""
    return f"; No space left on the device of {folder}: free some" if is_full else ""
